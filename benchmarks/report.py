"""Writes `results/report.md` from the parts' results; `benchmarks.plots` draws the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from benchmarks.flops import forward_flops
from benchmarks.measurements import Measurement, read_findings
from benchmarks.plots import PLOTS
from benchmarks.scenarios import SEQUENCES
from benchmarks.services import SIZE
from benchmarks.sizes import config_of
from benchmarks.tables import number, pivot, spread, table
from benchmarks.targets import (
    OFFLINE,
    Results,
    Target,
    dtype_of,
    judged,
    matrix_peak,
    median,
    offline_best,
    select,
)
from benchmarks.workload import natural_lengths

DTYPES: Final = ("float32", "bfloat16", "int8")
LOADS: Final = ("1x1", "8x1", "64x1", "4x32")
Section = Callable[[Results], Iterator[str]]


def write_report(folder: Path) -> Path:
    """Writes the report and the plots of every part that has results.

    Returns:
        Path of the report.
    """
    found = {part: findings for part in PARTS if (findings := read_findings(part, folder)) is not None}
    plots = {part: [plot.name for plot in PLOTS if plot.part == part and plot.draw(found, folder)] for part in found}
    path = folder / "report.md"
    path.write_text("\n".join(_report(found, plots)), encoding="utf-8")
    return path


def _report(found: Results, plots: Mapping[str, list[str]]) -> Iterator[str]:
    yield from ("# Benchmarks", "")
    yield "`python -m benchmarks report` writes this from the JSON files in this folder. Numbers are medians over"
    yield "interleaved rounds, with the least and the largest in brackets. The [README](../README.md) explains them."
    yield ""
    yield from _targets(found)
    for part, (title, section) in PARTS.items():
        if part in found:
            yield from (f"## {title}", "", *_head(found, part))
            yield from section(found)
            yield from (f"![{name}]({name}.png)\n" for name in plots[part])
    yield from _machine(found)


def _targets(found: Results) -> Iterator[str]:
    yield from ("## To reach", "")
    yield from table(["", "at least (≤: at most)", "got", "reached"], [_judged(*pair) for pair in judged(found)])


def _judged(target: Target, got: float | None) -> list[str]:
    bound = f"{'≤ ' if target.at_most else ''}{number(target.bound)}{target.unit}"
    if got is None:
        return [target.text, bound, "not measured", ""]
    return [target.text, bound, f"{number(got)}{target.unit}", "yes" if target.reached(got) else "**no**"]


def _head(found: Results, part: str) -> Iterator[str]:
    findings = found[part]
    if findings.quick:
        yield from ("**A quick run shows that everything works; its numbers mean little.**", "")
    yield from (f"{note}\n" for note in findings.notes)
    if findings.skipped:
        yield "Not measured:\n"
        yield from (f"- {name}: {reason}" for name, reason in findings.skipped.items())
        yield ""


def _offline(found: Results) -> Iterator[str]:
    for size in _values(found, "offline", "gflop_per_s", "size"):
        rates = select(found, "offline", "gflop_per_s", size=size)
        mix = select(found, "offline", "tokens_per_s", size=size)
        peaks = {dtype: peak for dtype in DTYPES if (peak := matrix_peak(found, dtype, size=size))}
        yield from (f"### {size}: matrix peak of the machine in these rounds, GFLOP/s of its best library", "")
        yield from table(["", *peaks], [["", *map(number, peaks.values())]])
        yield from (f"### {size}: fraction of its dtype's matrix peak, full batches of rows x length", "")
        yield from pivot(rates, "encoder", "shape", lambda m: _of_peak(found, m))
        yield from (f"### {size}: GFLOP/s", "", *pivot(rates, "encoder", "shape"))
        yield from (f"### {size}: real tokens/s over the natural mix, by how it is cut into windows", "")
        yield from pivot([m for m in mix if "order" in m.labels], "encoder", "order")
        padded = select(found, "offline", "padded_per_real", size=size)
        yield from (f"### {size}: positions computed per real token", "", *pivot(padded, "encoder", "order"))
        yield from (f"### {size}: agreement with KerasHub, checked before timing", "")
        yield from _agreement(found, "offline", "encoder", size=size)


def _served(found: Results) -> Iterator[str]:
    for output in ("pooled_output", "sequence_output"):
        for transport in ("rest", "grpc"):
            labels = {"output": output, "transport": transport, "mix": "natural"}
            rates = select(found, "served", "sequences_per_s", **labels)
            name = {"rest": "REST", "grpc": "gRPC"}[transport]
            yield from (f"### {name}, `{output}`: sequences/s, by clients x sequences in each request", "")
            in_order = sorted(rates, key=lambda m: LOADS.index(str(m.labels["load"])))
            yield from pivot(in_order, "service", "load")
            yield from (f"### {name}, `{output}`: p50 / p90 / p99 in ms", "", *_latencies(found, labels))
    yield from ("### Of the engine's own offline best, `pooled_output`, 64 clients", "", *_of_best(found))
    yield from ("### Batches at 64 clients, REST, `pooled_output`", "", *_batches(found))
    yield from ("### Memory, and batches in the time that it grew in", "", *_memory(found))
    yield from ("### Added to a raw forward of (1,32), one client, p50 in ms", "", *_added(found))
    yield from ("### Agreement with KerasHub + LitServe, checked before timing", "")
    yield from _agreement(found, "served", "service")
    errors = sum(sum(m.samples) for m in select(found, "served", "errors"))
    yield from (f"Failed requests: {number(errors)}.", "")


def _ablations(found: Results) -> Iterator[str]:
    yield from ("### Planner, REST, `pooled_output`, natural mix: sequences/s", "")
    for load in ("64x1", "4x32"):
        rates = select(found, "ablations", "sequences_per_s", load=load)
        yield from (f"{load.replace('x', ' clients × ')}:", "", *_with_ratio(rates, "planner"))
    for mix in _values(found, "ablations", "sequences_per_s", "mix", having="last_layer"):
        rates = [m for m in select(found, "ablations", "sequences_per_s", mix=mix) if "last_layer" in m.labels]
        yield from (f"### Last layer, offline, {mix}: sequences/s", "", *_with_ratio(rates, "last_layer"))


def _overheads(found: Results) -> Iterator[str]:
    for quantity, title in {
        "requests_per_s": "requests/s",
        "server_cpu_us": "CPU µs a request",
        "p50_ms": "p50 in ms",
    }.items():
        yield from (f"### {title}", "", *pivot(select(found, "overheads", quantity), "server", "scenario"))


def _start(found: Results) -> Iterator[str]:
    quantities = {"start_s": "READY after s", "rss_mib": "RSS MiB", "pss_mib": "PSS MiB"}
    rows = [
        [service, *(spread(select(found, "start", quantity, service=service)[0]) for quantity in quantities)]
        for service in _values(found, "start", "start_s", "service")
    ]
    yield from table(["service", *quantities.values()], rows)


def _gpu(found: Results) -> Iterator[str]:
    for size in _values(found, "gpu", "gflop_per_s", "size"):
        rates = select(found, "gpu", "gflop_per_s", size=size)
        tokens = select(found, "gpu", "tokens_per_s", size=size)
        yield from (f"### {size}: fraction of the measured bf16 matrix rate", "")
        yield from pivot(rates, "encoder", "shape", lambda m: _of_peak(found, m, "gpu", "bfloat16"))
        yield from (f"### {size}: tokens/s", "", *pivot([m for m in tokens if "shape" in m.labels], "encoder", "shape"))
        yield from (f"### {size}: real tokens/s, natural mix", "")
        yield from pivot([m for m in tokens if "order" in m.labels], "encoder", "order")


def _beside(found: Results) -> Iterator[str]:
    figures = {
        "sequences_per_s_ratio": "sequences/s",
        "p50_ms_ratio": "p50",
        "p99_ms_ratio": "p99",
        "server_cpu_us_ratio": "CPU time",
    }
    rows = []
    for rate in select(found, "beside", "sequences_per_s_ratio"):
        cells = [select(found, "beside", figure, **rate.labels) for figure in figures]
        names = [str(rate.labels[label]) for label in ("service", "transport", "load", "mix")]
        rows.append([*names, *(f"{spread(cell[0])}" if cell else "" for cell in cells)])
    yield from ("### Ours / theirs in the same round, `pooled_output`", "")
    yield from table(["service", "transport", "clients × sequences", "lengths", *figures.values()], rows)
    yield from ("### Ours: sequences/s", "")
    yield from table(
        ["service", "transport", "clients × sequences", "lengths", "sequences/s"],
        [
            [*(str(rate.labels[label]) for label in ("service", "transport", "load", "mix")), spread(rate)]
            for rate in select(found, "beside", "sequences_per_s")
        ],
    )
    yield from ("### Agreement, checked before timing", "", *_agreement(found, "beside", "service"))


def _bulk(found: Results) -> Iterator[str]:
    rates = {str(m.labels["way"]): m for m in select(found, "bulk", "rows_per_s")}
    best = max((m.median for name, m in rates.items() if name.startswith(OFFLINE)), default=0.0)
    rows = []
    for name, rate in sorted(rates.items(), key=lambda item: -item[1].median):
        [tokens] = select(found, "bulk", "tokens_per_s", way=name)
        difference = median(found, "bulk", "largest_difference", way=name)
        of_best = f"{rate.median / best:.2f}" if best else ""
        rows.append([name, spread(rate), spread(tokens), of_best, "" if difference is None else number(difference)])
    yield from table(["", "rows/s", "tokens/s", "of offline best", "largest difference"], rows)


def _oip(found: Results) -> Iterator[str]:
    for size, title in {"1x32": "(1,32)", "32x128": "(32,128)"}.items():
        for quantity, unit in {
            "server_cpu_us": "CPU µs a request",
            "sequences_per_s": "sequences/s",
            "p50_ms": "p50 in ms",
        }.items():
            measured = [_with_load(m) for m in select(found, "oip", quantity, size=size)]
            yield from (f"### {title}: {unit}, by output and clients", "", *pivot(measured, "api", "load"))
    ratios = [_with_load(m) for m in select(found, "oip", "server_cpu_ratio")]
    yield from ("### (1,32): CPU time of a request / that of the native API in the same round", "")
    yield from pivot(ratios, "api", "load")
    yield from ("### (32,128) over REST: sequences/s of binary tensors / JSON in the same round", "")
    yield from pivot([_with_load(m) for m in select(found, "oip", "binary_per_json")], "api", "load")


def _with_load(found: Measurement) -> Measurement:
    """Adds a label of output and clients."""
    load = f"{found.labels['output']}, {found.labels['clients']}"
    return Measurement(found.quantity, {**found.labels, "load": load}, found.samples)


PARTS: Final[Mapping[str, tuple[str, Section]]] = {
    "offline": ("1. Offline", _offline),
    "served": ("2. Served", _served),
    "ablations": ("3. Ablations", _ablations),
    "overheads": ("4. Overheads", _overheads),
    "start": ("5. Start", _start),
    "gpu": ("6. GPU", _gpu),
    "beside": ("7. Against another checkout", _beside),
    "oip": ("8. Open Inference Protocol", _oip),
    "bulk": ("9. Corpus encoding", _bulk),
}
"""Part → title and section."""


def _of_peak(found: Results, rate: Measurement, part: str = "offline", dtype: str = "") -> str:
    within = {"size": str(rate.labels["size"])} if part == "offline" else {}
    peak = matrix_peak(found, dtype or dtype_of(str(rate.labels["encoder"])), part, **within)
    return f"{rate.median / peak:.2f}" if peak else ""


def _agreement(found: Results, part: str, what: str, **labels: str) -> Iterator[str]:
    differences = select(found, part, "largest_difference", **labels)
    cosines = select(found, part, "least_cosine", **labels)
    rows = [
        [str(d.labels[what]), f"{d.median:.1e}", f"{c.median:.5f}"] for d, c in zip(differences, cosines, strict=True)
    ]
    yield from table([what, "largest difference", "least cosine"], rows)


def _latencies(found: Results, labels: Mapping[str, str]) -> Iterator[str]:
    percentiles = [select(found, "served", quantity, **labels) for quantity in ("p50_ms", "p90_ms", "p99_ms")]
    cells: dict[tuple[str, str], str] = {}
    for of_one in zip(*percentiles, strict=True):
        where = str(of_one[0].labels["service"]), str(of_one[0].labels["load"])
        cells[where] = " / ".join(number(m.median) for m in of_one)
    services = list(dict.fromkeys(service for service, _ in cells))
    yield from table(
        ["service", *LOADS], [[name, *(cells.get((name, load), "") for load in LOADS)] for name in services]
    )


def _of_best(found: Results) -> Iterator[str]:
    rows = []
    for engine in _values(found, "served", "sequences_per_s", "engine"):
        best = offline_best(found, engine)
        labels = {"service": engine, "load": "64x1", "output": "pooled_output"}
        for served in select(found, "served", "sequences_per_s", **labels):
            if best:
                row = [
                    engine,
                    str(served.labels["transport"]),
                    spread(served),
                    number(best),
                    f"{served.median / best:.2f}",
                    _served_of_peak(found, served.median, engine),
                ]
                rows.append(row)
    yield from table(["engine", "transport", "served/s", "offline best/s", "ratio", "of the matrix peak"], rows)


def _served_of_peak(found: Results, sequences_per_s: float, engine: str) -> str:
    """Arithmetic for real tokens as a fraction of the dtype's matrix peak."""
    peak = matrix_peak(found, dtype_of(engine), size=SIZE)
    lengths = natural_lengths(SEQUENCES)
    flops = sum(forward_flops(config_of(SIZE), 1, length) for length in lengths) / len(lengths)
    return f"{sequences_per_s * flops / 1e9 / peak:.2f}" if peak else ""


def _batches(found: Results) -> Iterator[str]:
    labels = {"load": "64x1", "output": "pooled_output", "transport": "rest"}
    quantities = {
        "padded_per_real": "positions per real token",
        "batch_sequences": "sequences a batch",
        "compilations": "compilations",
    }
    columns = {q: {m.labels["service"]: spread(m) for m in select(found, "served", q, **labels)} for q in quantities}
    services = list(dict.fromkeys(service for column in columns.values() for service in column))
    rows = [[str(service), *(column.get(service, "") for column in columns.values())] for service in services]
    yield from table(["service", *quantities.values()], rows)


def _memory(found: Results) -> Iterator[str]:
    quantities = {"rss_ready_mib": "RSS at READY, MiB", "rss_growth_mib": "growth, MiB", "batches": "batches"}
    columns = {q: {m.labels["service"]: number(m.median) for m in select(found, "served", q)} for q in quantities}
    rows = [
        [str(service), *(column.get(service, "") for column in columns.values())]
        for service in columns["rss_ready_mib"]
    ]
    yield from table(["service", *quantities.values()], rows)


def _added(found: Results) -> Iterator[str]:
    forward = {m.labels["service"]: spread(m) for m in select(found, "served", "forward_ms")}
    added = {(m.labels["service"], m.labels["transport"]): spread(m) for m in select(found, "served", "added_ms")}
    rows = [[str(name), alone, added[name, "grpc"], added[name, "rest"]] for name, alone in forward.items()]
    yield from table(["engine", "forward", "gRPC adds", "REST adds"], rows)


def _with_ratio(found: list[Measurement], column: str) -> Iterator[str]:
    """A row for each engine, a column for each way, and the ratio of the first to the second."""
    ways = list(dict.fromkeys(str(m.labels[column]) for m in found))
    rows = []
    for engine in dict.fromkeys(str(m.labels["engine"]) for m in found):
        by_way = {str(m.labels[column]): m for m in found if m.labels["engine"] == engine}
        quotient = f"{by_way[ways[0]].median / by_way[ways[1]].median:.2f}×" if len(by_way) == len(ways) > 1 else ""
        rows.append([engine, *(spread(by_way[way]) if way in by_way else "" for way in ways), quotient])
    yield from table(["engine", *ways, "ratio"], rows)


def _values(found: Results, part: str, quantity: str, label: str, having: str = "") -> list[str]:
    """The values of a label, in the order of their measurements."""
    measured = (
        m.labels for m in select(found, part, quantity) if label in m.labels and (not having or having in m.labels)
    )
    return list(dict.fromkeys(str(labels[label]) for labels in measured))


def _machine(found: Results) -> Iterator[str]:
    yield from ("## Machine", "")
    machines = {str(dict(findings.machine)): findings.machine for findings in found.values()}
    for machine in machines.values():
        yield from table(["", ""], [[name, str(value)] for name, value in machine.items()])
    yield from table(["part", "measured at (UTC)"], [[part, findings.created] for part, findings in found.items()])
