"""`python -m benchmarks [part …] [--quick]`: measures, writes `<part>.json` for each, and then the report of all."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.measurements import QUICK_RESULTS, RESULTS, Findings
from benchmarks.sizes import FULL, QUICK, Effort

log = logging.getLogger("benchmarks")


def _offline(effort: Effort) -> Findings:
    from benchmarks.offline import measure_offline

    return measure_offline(effort)


def _served(effort: Effort) -> Findings:
    from benchmarks.served import measure_served

    return measure_served(effort)


def _ablations(effort: Effort) -> Findings:
    from benchmarks.ablations import measure_ablations

    return measure_ablations(effort)


def _start(effort: Effort) -> Findings:
    from benchmarks.start import measure_start

    return measure_start(effort)


def _overheads(effort: Effort) -> Findings:
    from benchmarks.overheads import measure_overheads

    return measure_overheads(effort)


def _bulk(effort: Effort) -> Findings:
    from benchmarks.bulk import measure_bulk

    return measure_bulk(effort)


def _beside(effort: Effort) -> Findings:
    from benchmarks.beside import measure_beside

    if effort.beside is None:
        raise SystemExit("the part beside needs --beside CHECKOUT")
    return measure_beside(effort, effort.beside)


def _gpu(effort: Effort) -> Findings:
    from benchmarks.gpu import measure_gpu

    return measure_gpu(effort)


def _oip(effort: Effort) -> Findings:
    from benchmarks.oip import measure_oip

    return measure_oip(effort)


PARTS: Final[Mapping[str, Callable[[Effort], Findings]]] = {
    "offline": _offline,
    "served": _served,
    "ablations": _ablations,
    "overheads": _overheads,
    "start": _start,
    "bulk": _bulk,
    "gpu": _gpu,
    "beside": _beside,
    "oip": _oip,
}
"""Parts in the order of `all`; each imports its own libraries when it runs."""
EXTRA: Final = ("beside",)
"""Parts that `all` leaves out."""


def main() -> int:
    """Measures the requested parts and writes the report of all results so far."""
    flags = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends every started process
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    effort = dataclasses.replace(QUICK if flags.quick else FULL, device=flags.device, beside=flags.beside)
    if flags.rounds:
        effort = dataclasses.replace(effort, rounds=flags.rounds, mix_rounds=flags.rounds)
    folder = QUICK_RESULTS if flags.quick else RESULTS
    everything = [part for part in PARTS if part not in EXTRA]
    for part in everything if "all" in flags.parts else [part for part in flags.parts if part in PARTS]:
        started = time.perf_counter()
        path = PARTS[part](effort).write(folder)
        log.info("%s: written to %s after %.0f s", part, path, time.perf_counter() - started)
    log.info("report: written to %s", _report(folder))
    return 0


def _report(folder: Path) -> Path:
    from benchmarks.report import write_report

    return write_report(folder)


def _folder(text: str) -> Path:
    folder = Path(text).resolve()
    if not (folder / "service").is_dir():
        raise argparse.ArgumentTypeError(f"must be a checkout of this project; got {text}")
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        default=["all"],
        choices=(*PARTS, "report", "all"),
        metavar="PART",
        help=f"{', '.join(PARTS)}, report or all (default)",
    )
    parser.add_argument("--quick", action="store_true", help="minutes instead of hours, to check that it works")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="device of the part gpu")
    parser.add_argument("--rounds", type=int, help="samples of each case")
    parser.add_argument(
        "--beside",
        type=_folder,
        metavar="CHECKOUT",
        help="beside: compare with that checkout's services",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
