"""The report's pictures, as PNG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.measurements import Measurement
from benchmarks.services import ARTIFACT, CONTENDERS
from benchmarks.targets import Results, dtype_of, matrix_peak, select

WIDTH: Final = 9.0
DPI: Final = 130
COLORS: Final = {
    "openvino/bfloat16": "#0b4f9e",
    "openvino/float32": "#3a87d4",
    "openvino/int8": "#062a55",
    "tensorflow/float32": "#8fbfec",
    "tensorflow/bfloat16": "#6aa8e0",
    "jax/float32": "#57b8b0",
    "jax/bfloat16": "#2a8f86",
}
"""Ours are blue and green; others get grays and browns."""
OTHERS: Final = ("#7a7a7a", "#b08b5b", "#c4622d", "#a9a9a9", "#8b6f9c", "#d8a35f")
LOADS: Final = {"1x1": "1 client", "8x1": "8 clients", "64x1": "64 clients", "4x32": "4 clients × 32"}
NATURAL: Final = {"mix": "natural", "output": "pooled_output", "transport": "rest"}


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture.

    Attributes:
        part: Part whose results it shows.
        name: Name of its file, without the suffix.
        make: Draws it; returns None if there is nothing to show.
    """

    part: str
    name: str
    make: Callable[[Results], Any]

    def draw(self, found: Results, folder: Path) -> bool:
        """Writes the file; returns False if there is nothing to show."""
        mpl.use("Agg")
        figure = self.make(found)
        if figure is None:
            return False
        figure.savefig(folder / f"{self.name}.png", dpi=DPI, bbox_inches="tight")
        plt.close(figure)
        return True


def _throughput(found: Results) -> Any:
    """Draws grouped bars: loads, and services within each."""
    rates = select(found, "served", "sequences_per_s", **NATURAL)
    services = _names(rates, "service")
    if not services:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 4.6))
    width = 0.84 / len(services)
    for place, service in enumerate(services):
        found_of = {str(m.labels["load"]): m for m in rates if m.labels["service"] == service}
        loads = [load for load in LOADS if load in found_of]
        at = [list(LOADS).index(load) + (place - (len(services) - 1) / 2) * width for load in loads]
        medians = [found_of[load].median for load in loads]
        errors = _errors([found_of[load] for load in loads])
        axes.bar(at, medians, width * 0.92, yerr=errors, color=_color(service, services), label=service, ecolor="#333")
        for x, y, measurement in zip(at, medians, (found_of[load] for load in loads), strict=True):
            axes.annotate(
                f"{y:.0f}", (x, max(y, measurement.high)), (0, 2), textcoords="offset points", ha="center", fontsize=7
            )
    axes.set_xticks(range(len(LOADS)), LOADS.values())
    axes.set_ylabel("sequences / s")
    axes.set_title("Served, small, natural lengths, REST, pooled_output (more is better)")
    _finish(axes, "y")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False, fontsize=9)
    return figure


def _latency(found: Results) -> Any:
    """Draws percentiles at 64 clients: a line for each service from p50 to p99."""
    labels = {**NATURAL, "load": "64x1"}
    p50, p90, p99 = (
        {str(m.labels["service"]): m.median for m in select(found, "served", quantity, **labels)}
        for quantity in ("p50_ms", "p90_ms", "p99_ms")
    )
    services = sorted(p99, key=p99.__getitem__, reverse=True)
    if not services:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 0.5 * len(services) + 1.6))
    for place, service in enumerate(services):
        color = _color(service, services)
        axes.plot([p50[service], p99[service]], [place, place], color=color, linewidth=3, zorder=1)
        for values, marker in ((p50, "o"), (p90, "s"), (p99, "D")):
            axes.scatter(values[service], place, color=color, marker=marker, s=46, zorder=2)
        axes.annotate(f"{p99[service]:,.0f} ms", (p99[service], place), (9, -3), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(services)), services)
    axes.set_xscale("log")
    axes.margins(x=0.14, y=0.12)
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda ms, _: f"{ms:,.0f}"))
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes.set_xlabel("ms, logarithmic:  ● p50   ■ p90   ◆ p99  (less is better)")
    axes.set_title("Latency at 64 clients, small, natural lengths, REST, pooled_output")
    _finish(axes, "x")
    return figure


def _roofline(found: Results) -> Any:
    """Draws a heat map of each size: encoders by shapes, as fractions of their dtype's peak."""
    rates = select(found, "offline", "gflop_per_s")
    sizes = _names(rates, "size")
    if not sizes:
        return None
    encoders, shapes = _names(rates, "encoder"), _names(rates, "shape")
    figure, panels = plt.subplots(
        1,
        len(sizes),
        figsize=(2.4 + 4.2 * len(sizes), 0.42 * len(encoders) + 1.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        cells = {(m.labels["encoder"], m.labels["shape"]): m for m in rates if m.labels["size"] == size}
        grid = [[_fraction(found, cells.get((encoder, shape))) for shape in shapes] for encoder in encoders]
        image = axes.imshow(grid, vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
        for y, row in enumerate(grid):
            for x, fraction in enumerate(row):
                text = "" if math.isnan(fraction) else f"{fraction:.2f}"
                axes.text(
                    x, y, text, ha="center", va="center", fontsize=8, color="white" if fraction > 0.55 else "black"
                )
        axes.set_xticks(range(len(shapes)), [shape.replace("x", "×") for shape in shapes])
        axes.set_yticks(range(len(encoders)), encoders)
        axes.set_xlabel("rows × length")
        axes.set_title(f"{size} (peak in GFLOP/s: {_peaks(found, size)})", fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.suptitle("Offline: fraction of the dtype's matrix peak")
    figure.colorbar(image, ax=panels[0].tolist(), fraction=0.03, pad=0.02, label="of the peak")
    return figure


def _orders(found: Results) -> Any:
    """Draws real tokens a second, by the windows of the natural mix."""
    rates = [m for m in select(found, "offline", "tokens_per_s", size="small") if "order" in m.labels]
    encoders, orders = _names(rates, "encoder"), _names(rates, "order")
    if not encoders:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 * len(encoders) + 1.4))
    height = 0.8 / len(orders)
    for place, (order, color) in enumerate(
        zip(orders, ("#c4622d", "#e0a27a", "#3a87d4", "#0b4f9e", "#9aa7b5"), strict=False)
    ):
        values = {m.labels["encoder"]: m.median for m in rates if m.labels["order"] == order}
        at = [y + (place - (len(orders) - 1) / 2) * height for y in range(len(encoders))]
        axes.barh(at, [values.get(encoder, 0) for encoder in encoders], height * 0.9, color=color, label=order)
    axes.set_yticks(range(len(encoders)), encoders)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda rate, _: f"{rate:,.0f}"))
    axes.set_xlabel("real tokens / s (more is better)")
    axes.set_title("Offline, small, natural lengths, by window")
    _finish(axes, "x")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=3, frameon=False, fontsize=9)
    return figure


def _planner(found: Results) -> Any:
    """Draws pairs of bars: the planner, and one sequence per row in order of arrival."""
    rates = select(found, "ablations", "sequences_per_s", load="64x1")
    engines, planners = _names(rates, "engine"), _names(rates, "planner")
    if not engines:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 4))
    for place, (planner, color) in enumerate(zip(planners, ("#0b4f9e", "#c4622d"), strict=True)):
        of_one = [
            m for engine in engines for m in rates if (m.labels["engine"], m.labels["planner"]) == (engine, planner)
        ]
        at = [engines.index(str(m.labels["engine"])) + (place - 0.5) * 0.38 for m in of_one]
        medians = [m.median for m in of_one]
        bars = axes.bar(at, medians, 0.36, yerr=_errors(of_one), color=color, label=planner, ecolor="#333")
        axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    axes.set_xticks(range(len(engines)), engines)
    axes.set_ylabel("sequences / s")
    axes.set_title("Effect of the planner: 64 clients, small, natural lengths (more is better)")
    _finish(axes, "y")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False, fontsize=9)
    return figure


def _start(found: Results) -> Any:
    """Draws two panels: seconds to READY, and memory."""
    seconds = select(found, "start", "start_s")
    if not seconds:
        return None
    services = [str(m.labels["service"]) for m in sorted(seconds, key=lambda m: m.median)]
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 0.38 * len(services) + 1.3), sharey=True)
    quantities = (("start_s", "seconds to READY"), ("pss_mib", "memory, PSS in MiB"))
    for axes, (quantity, title) in zip(panels, quantities, strict=True):
        by_name = {m.labels["service"]: m for m in select(found, "start", quantity)}
        of_all = [by_name[service] for service in services]
        colors = [_color(service, services) for service in services]
        bars = axes.barh(services, [m.median for m in of_all], xerr=_errors(of_all), color=colors, ecolor="#333")
        form = "%.1f" if quantity == "start_s" else "%.0f"
        axes.bar_label(bars, fmt=form, fontsize=8, padding=3)
        axes.set_xlabel(f"{title} (less is better)")
        axes.margins(x=0.16)
        _finish(axes, "x")
    panels[0].invert_yaxis()
    figure.suptitle("Start of the process, small", y=1.0)
    figure.tight_layout()
    return figure


PLOTS: Final = (
    Plot("offline", "offline_roofline", _roofline),
    Plot("offline", "offline_orders", _orders),
    Plot("served", "served_throughput", _throughput),
    Plot("served", "served_latency", _latency),
    Plot("ablations", "planner", _planner),
    Plot("start", "start", _start),
)


def _names(found: list[Measurement], label: str) -> list[str]:
    return list(dict.fromkeys(str(m.labels[label]) for m in found))


def _color(service: str, services: list[str]) -> str:
    ours = service.replace(f"{ARTIFACT}/", "openvino/")
    if ours in COLORS:
        return COLORS[ours]
    known = [*CONTENDERS, *(name for name in services if name not in CONTENDERS)]
    return OTHERS[known.index(service) % len(OTHERS)]


def _errors(found: list[Measurement]) -> list[list[float]]:
    """Returns the distances from the median to the least and to the largest sample."""
    return [[m.median - m.low for m in found], [m.high - m.median for m in found]]


def _fraction(found: Results, rate: Measurement | None) -> float:
    if rate is None:
        return float("nan")
    peak = matrix_peak(found, dtype_of(str(rate.labels["encoder"])), size=str(rate.labels["size"]))
    return rate.median / peak if peak else float("nan")


def _peaks(found: Results, size: str) -> str:
    peaks = {dtype: matrix_peak(found, dtype, size=size) for dtype in ("float32", "bfloat16", "int8")}
    return ", ".join(f"{dtype} {peak:,.0f}" for dtype, peak in peaks.items() if peak)


def _finish(axes: Any, grid: str) -> None:
    axes.grid(axis=grid, color="#ddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
