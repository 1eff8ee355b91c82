"""Draws training curves. Imports matplotlib, which takes a second: import this module where it is used.

Only matplotlib's objects are used and never pyplot, which keeps figures for ever; one figure is drawn at a time, since
matplotlib is not made for threads.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from daf_statistics.curves import SMOOTHING_SHARE, TITLES, Curve, smoothed, with_unit

DOTS_PER_INCH = (200, 120, 60)
"""The first is for screens of double resolution; the others are tried where the picture has too many bytes."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
"""Told apart with every kind of colour blindness: those of Okabe and Ito, but for their yellow, which is too light."""
DASHES = ("-", (0, (6, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)))
"""Lines that follow each other differ in these, too, and so in print."""

PANEL_INCHES = (5.4, 2.9)
INK, NOTE, GRID = "#222222", "#555555", "#E4E4E4"

_drawing = threading.Lock()


def draw(curves: Sequence[Curve], metrics: Sequence[str], sources: Sequence[str], title: str, max_bytes: int) -> bytes:
    """A picture as PNG, with one panel for each metric and one line for each source.

    Args:
        curves: what is drawn; a source may lack some metrics.
        metrics: the panels, at least one.
        sources: the lines, at least one, in the order of the legend.
        title: above all panels, cut where it is too long; where it is empty, the name of the only source, or nothing
            above the legend of several.
        max_bytes: the picture gets smaller until it has no more bytes than this.
    """
    with _drawing:
        figure = _figure(curves, metrics, sources, title)
        for dots in DOTS_PER_INCH:
            file = io.BytesIO()
            figure.savefig(file, dpi=dots, format="png")
            if file.tell() <= max_bytes:
                break
        return file.getvalue()


def _figure(curves: Sequence[Curve], metrics: Sequence[str], sources: Sequence[str], title: str) -> Figure:
    columns = min(len(metrics), 3 if len(metrics) > 8 else 2)
    rows = math.ceil(len(metrics) / columns)
    legend_rows = math.ceil(len(sources) / columns) if len(sources) > 1 else 0
    width = max(7.4, columns * PANEL_INCHES[0])
    title = title or ("" if legend_rows else sources[0])
    legend_top = 0.4 if title else 0.1
    top, bottom = legend_top + 0.12 + 0.22 * legend_rows, 0.36
    height = rows * PANEL_INCHES[1] + top + bottom
    layout = ConstrainedLayoutEngine(
        rect=(0.01, bottom / height, 0.98, 1 - (top + bottom) / height), h_pad=0.1, w_pad=0.1
    )
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes, metric in zip(panels, metrics, strict=False):
        _panel(axes, metric, [curve for curve in curves if curve.metric == metric], sources)
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    figure.text(0.5, 1 - 0.14 / height, _cut(title, int(width * 10)), ha="center", va="top", size=13, color=INK)
    if legend_rows:
        figure.legend(
            handles=[Line2D([], [], label=_cut(name, 50), **_style(number)) for number, name in enumerate(sources)],
            loc="upper center",
            bbox_to_anchor=(0.5, 1 - legend_top / height),
            ncols=columns,
            frameon=False,
            handlelength=3.6,
            fontsize=9,
        )
    figure.text(0.5, 0.12 / height, _note(curves), ha="center", va="bottom", size=8.5, color=NOTE)
    return figure


def _panel(axes: Axes, metric: str, curves: Sequence[Curve], sources: Sequence[str]) -> None:
    window = SMOOTHING_SHARE * max((curve.length for curve in curves), default=0.0)
    for curve in curves:
        style = _style(sources.index(curve.source))
        if curve.is_smoothed or len(curve.x) == 1:
            size, alpha = (7.0, 1.0) if len(curve.x) == 1 else (4.5, 0.35) if len(curve.x) < 500 else (2.6, 0.35)
            axes.plot(curve.x, curve.values, ".", color=style["color"], markersize=size, alpha=alpha, mew=0)
        axes.plot(curve.x, smoothed(curve.x, curve.values, window) if curve.is_smoothed else curve.values, **style)
        lost = curve.x[~np.isfinite(curve.values)]
        axes.plot(
            lost,
            np.full_like(lost, 0.03),
            "x",
            color=style["color"],
            markersize=5,
            transform=axes.get_xaxis_transform(),
        )
    axes.set_title(TITLES.get(metric, _cut(metric, 60)), loc="left", size=10.5, color=INK)
    axes.set_xlabel(" or ".join(sorted({curve.unit for curve in curves})), size=9, color=NOTE)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value)))
    top = max((np.nanmax(np.abs(curve.values)) for curve in curves if np.isfinite(curve.values).any()), default=0.0)
    if top >= 10_000:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: with_unit(value)))
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=NOTE, labelsize=9, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#AAAAAA")
    axes.margins(x=0.02)


def _style(number: int) -> dict[str, Any]:
    """How the line of a source looks; no two of the first 32 sources look the same."""
    dashes = DASHES[(number + number // len(COLORS)) % len(DASHES)]
    return {"color": COLORS[number % len(COLORS)], "linestyle": dashes, "linewidth": 1.7}


def _note(curves: Sequence[Curve]) -> str:
    """What the reader of the picture has to know about its lines."""
    said = []
    if any(curve.is_smoothed for curve in curves):
        of = "the longest run" if len({curve.source for curve in curves}) > 1 else "the run"
        window = f"Gaussian window with a standard deviation of {SMOOTHING_SHARE:.0%} of {of}"
        said.append(f"points: as reported; lines: smoothed, {window}")
    if any(not np.isfinite(curve.values).all() for curve in curves):
        said.append("x: not finite")
    return "; ".join(said)


def _cut(text: str, length: int) -> str:
    shown = text if len(text) <= length else text[: length - 1] + "…"
    return shown.replace("$", r"\$")  # or matplotlib would take it for a formula
