"""Targets, and what was reached, computed from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.measurements import Findings, Measurement
from benchmarks.services import ARTIFACT, LITSERVE, ONNX_ROWS

COMMAND: Final = "electra-serve encode"
OFFLINE: Final = "offline best"
"""Ways of the part `bulk`, of which several begin like the second."""

Results = Mapping[str, Findings]
"""Findings by part; parts that have not run are missing."""

MANY: Final = {"load": "64x1", "mix": "natural", "output": "pooled_output"}
BFLOAT16: Final = "openvino/bfloat16"
FLOAT32: Final = "openvino/float32"
INT8: Final = "openvino/int8"
BASE: Final = f"{BFLOAT16}, base"
LARGE_TOKENS: Final = 1024
"""(8, 128) and up."""


@dataclass(frozen=True, slots=True)
class Target:
    """One target.

    Attributes:
        text: Description.
        bound: Value to reach.
        find: Returns the measured value; None if there is none.
        at_most: Less is better.
        unit: Unit of both numbers.
    """

    text: str
    bound: float
    find: Callable[[Results], float | None]
    at_most: bool = False
    unit: str = ""

    def reached(self, found: float) -> bool:
        """Reports that `found` meets the bound.

        Example:
            >>> target = Target("p99", 0.5, lambda _: None, at_most=True)
            >>> target.reached(0.5), target.reached(0.51)
            (True, False)
        """
        return found <= self.bound if self.at_most else found >= self.bound


def select(results: Results, part: str, quantity: str, **labels: str | int) -> list[Measurement]:
    """Returns measurements of a part; none if it has not run."""
    return results[part].select(quantity, **labels) if part in results else []


def median(results: Results, part: str, quantity: str, **labels: str | int) -> float | None:
    """Returns the median of the first match, or None."""
    found = select(results, part, quantity, **labels)
    return found[0].median if found else None


def matrix_peak(results: Results, dtype: str, part: str = "offline", **labels: str) -> float | None:
    """Returns GFLOP/s of the best library and product; with `size`, in the rounds of that size."""
    found = select(results, part, "product_gflop_per_s", dtype=dtype, **labels)
    return max((measurement.median for measurement in found), default=None)


def dtype_of(encoder: str) -> str:
    """Returns the dtype of an encoder, by its name.

    Example:
        >>> dtype_of("openvino/bfloat16"), dtype_of("KerasHub predict")
        ('bfloat16', 'float32')
    """
    return encoder.partition("/")[2] or "float32"


def offline_best(results: Results, engine: str) -> float | None:
    """Returns sequences a second of an engine without a service, packed in the best windows."""
    found = [
        measurement.median
        for measurement in select(results, "served", "sequences_per_s", engine=engine)
        if "window" in measurement.labels
    ]
    return max(found, default=None)


def ratio(a: float | None, b: float | None) -> float | None:
    """Returns the quotient if both exist.

    Example:
        >>> ratio(3.0, 2.0), ratio(None, 2.0)
        (1.5, None)
    """
    return None if a is None or not b else a / b


def _fraction_of_peak(size: str) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        rates = [
            found.median
            for found in select(results, "offline", "gflop_per_s", encoder=BFLOAT16, size=size)
            if _tokens(str(found.labels["shape"])) >= LARGE_TOKENS
        ]
        return ratio(min(rates, default=None), matrix_peak(results, "bfloat16", size=size))

    return find


def _served(results: Results, quantity: str, service: str, transport: str = "rest") -> float | None:
    return median(results, "served", quantity, service=service, transport=transport, **MANY)


def _bulk_best(results: Results) -> float | None:
    found = [found for found in select(results, "bulk", "rows_per_s") if str(found.labels["way"]).startswith(OFFLINE)]
    return max((measurement.median for measurement in found), default=None)


def _bulk_of_best(results: Results) -> float | None:
    return ratio(median(results, "bulk", "rows_per_s", way=COMMAND), _bulk_best(results))


def _of_offline_best(transport: str) -> Callable[[Results], float | None]:
    return lambda results: ratio(
        _served(results, "sequences_per_s", BFLOAT16, transport), offline_best(results, BFLOAT16)
    )


def _against(quantity: str, ours: str, theirs: str) -> Callable[[Results], float | None]:
    return lambda results: ratio(_served(results, quantity, ours), _served(results, quantity, theirs))


def _planner(results: Results) -> float | None:
    by_planner = [
        median(results, "ablations", "sequences_per_s", engine=BFLOAT16, planner=planner, **MANY)
        for planner in ("by cost", "one per row, in arrival order")
    ]
    return ratio(*by_planner)


def _added(transport: str) -> Callable[[Results], float | None]:
    return lambda results: median(results, "served", "added_ms", service=BFLOAT16, transport=transport)


def _front_end(scenario: str) -> Callable[[Results], float | None]:
    return lambda results: median(results, "overheads", "requests_per_s", server="service", scenario=scenario)


def _oip_cpu(api: str) -> Callable[[Results], float | None]:
    return lambda results: median(results, "oip", "server_cpu_ratio", api=api, clients=64)


def _binary_per_json(output: str) -> Callable[[Results], float | None]:
    return lambda results: median(results, "oip", "binary_per_json", output=output)


def _artifact(quantity: str) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        services = (f"{ARTIFACT}/{dtype}" for dtype in ("float32", "bfloat16"))
        found = (median(results, "start", quantity, service=service) for service in services)
        return max((value for value in found if value is not None), default=None)

    return find


def _beside(service: str, labels: Mapping[str, str]) -> Callable[[Results], float | None]:
    return lambda results: median(
        results, "beside", "sequences_per_s_ratio", service=service, transport="rest", **labels
    )


def _lone(length: str) -> Callable[[Results], float | None]:
    return lambda results: median(results, "beside", "p50_ms_ratio", service=BFLOAT16, load="1x1", mix=length)


def _growth(results: Results) -> float | None:
    return median(results, "served", "rss_growth_mib", service=BFLOAT16)


def _compilations(results: Results) -> float | None:
    found = [*select(results, "served", "compilations"), *select(results, "ablations", "compilations")]
    return max((measurement.high for measurement in found), default=None)


def _tokens(shape: str) -> int:
    rows, length = map(int, shape.split("x"))
    return rows * length


TARGETS: Final[Sequence[Target]] = (
    Target("served at 64 clients against the other checkout, small bfloat16", 1.5, _beside(BFLOAT16, MANY), unit="×"),
    Target("the same, small float32", 1.2, _beside(FLOAT32, MANY), unit="×"),
    Target("the same, base bfloat16", 1.25, _beside(BASE, MANY), unit="×"),
    Target("lone request against the other checkout, (1,32), p50", 1.05, _lone("32"), at_most=True, unit="×"),
    Target("the same, (1,512)", 1.05, _lone("512"), at_most=True, unit="×"),
    Target("openvino bfloat16, base, (8,128) and up, of the bf16 matrix peak", 0.85, _fraction_of_peak("base")),
    Target("the same, small", 0.70, _fraction_of_peak("small")),
    Target("served at 64 clients, of the engines' own offline best, gRPC", 0.88, _of_offline_best("grpc")),
    Target("the same, REST", 0.88, _of_offline_best("rest")),
    Target("planner against one sequence per row in arrival order, 64 clients", 3, _planner, unit="×"),
    Target("against KerasHub + LitServe, float32", 8, _against("sequences_per_s", FLOAT32, LITSERVE), unit="×"),
    Target("the same, bfloat16", 22, _against("sequences_per_s", BFLOAT16, LITSERVE), unit="×"),
    Target("against onnxruntime row by row, float32", 1.4, _against("sequences_per_s", FLOAT32, ONNX_ROWS), unit="×"),
    Target("the same, bfloat16", 3.3, _against("sequences_per_s", BFLOAT16, ONNX_ROWS), unit="×"),
    Target(
        "p99 at 64 clients against that service's, bfloat16",
        0.4,
        _against("p99_ms", BFLOAT16, ONNX_ROWS),
        at_most=True,
        unit="×",
    ),
    Target("int8 against float32, small", 1.5, _against("sequences_per_s", INT8, FLOAT32), unit="×"),
    Target(
        "positions per real token, 64 clients", 1.2, lambda r: _served(r, "padded_per_real", BFLOAT16), at_most=True
    ),
    Target("memory after all loads, above that at READY", 57, _growth, at_most=True, unit=" MiB"),
    Target("added to a raw forward of (1,32), p50, one client, gRPC", 1.0, _added("grpc"), at_most=True, unit=" ms"),
    Target("the same, REST", 1.5, _added("rest"), at_most=True, unit=" ms"),
    Target("front end alone on one core, gRPC", 3000, _front_end("grpc 64"), unit=" requests/s"),
    Target("the same, REST", 2500, _front_end("rest float 64"), unit=" requests/s"),
    Target(
        "CPU of a request of the Open Inference Protocol against the native one, gRPC",
        1.15,
        _oip_cpu("OIP gRPC, raw"),
        at_most=True,
        unit="×",
    ),
    Target("the same, REST with JSON", 1.15, _oip_cpu("OIP REST, JSON"), at_most=True, unit="×"),
    Target("the same, REST with binary tensors", 1.15, _oip_cpu("OIP REST, binary"), at_most=True, unit="×"),
    Target(
        "binary tensors of (32,128) against JSON, every position, sequences/s",
        3,
        _binary_per_json("sequence_output"),
        unit="×",
    ),
    Target("the same, pooled output", 3, _binary_per_json("pooled_output"), unit="×"),
    Target("READY after start, openvino artifact, small", 2.0, _artifact("start_s"), at_most=True, unit=" s"),
    Target("the same, resident memory then", 429, _artifact("rss_mib"), at_most=True, unit=" MiB"),
    Target("encode of a corpus, of the engines' own offline best", 0.95, _bulk_of_best),
    Target("compilations after warm-up", 0, _compilations, at_most=True),
)
"""450 MB are 429 MiB, 60 MB are 57."""


def judged(results: Results) -> Iterator[tuple[Target, float | None]]:
    """Returns each target and its measured value."""
    return ((target, target.find(results)) for target in TARGETS)
