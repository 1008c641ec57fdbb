"""Figures of the book, static ones with matplotlib and interactive ones with plotly."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from skimage.measure import marching_cubes

MASK_COLOUR = "#d55e00"
TRUTH_COLOUR = "#0072b2"
COLOURS = (TRUTH_COLOUR, MASK_COLOUR, "#009e73", "#cc79a7")
"""Colours of Okabe and Ito, distinct for readers with any colour vision."""


def _cube(volume: torch.Tensor | np.ndarray) -> np.ndarray:
    array = np.asarray(volume.detach().cpu() if isinstance(volume, torch.Tensor) else volume, dtype=float)
    return array.reshape(array.shape[-3:])


def slices(
    volumes: Sequence[torch.Tensor], titles: Sequence[str], masks: Sequence[torch.Tensor | None] | None = None
) -> Figure:
    """Plot central z slices of volumes ``(..., D, H, W)``, leading sides 1, with masks of the same shape outlined in orange."""

    def middle(volume: torch.Tensor) -> np.ndarray:
        return _cube(volume)[volume.shape[-3] // 2]

    return panels([*map(middle, volumes)], titles, masks and [None if mask is None else middle(mask) for mask in masks])


def panels(
    images: Sequence[np.ndarray | torch.Tensor],
    titles: Sequence[str],
    outlines: Sequence[np.ndarray | torch.Tensor | None] | None = None,
    *,
    columns: int | None = None,
) -> Figure:
    """Plot grey images ``(H, W)``, first row at the bottom, each scaled from its 1st to its 99th percentile.

    Masks ``(H, W)`` in ``outlines`` are outlined in orange; a row has ``columns`` panels, by default all of them.
    """
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    heights = [max(i.shape[0] / i.shape[1] for i in images[row * columns : (row + 1) * columns]) for row in range(rows)]
    width = 7.5 / columns
    above = 0.15 + 0.15 * max(len(title.splitlines()) for title in titles)
    size = (7.5, sum(width * height + above for height in heights))
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=150, squeeze=False, height_ratios=heights)
    for axis in axes.flat[len(images) :]:
        axis.set_axis_off()
    each = zip(images, titles, outlines or [None] * len(images), strict=True)
    for axis, (image, title, outline) in zip(axes.flat, each, strict=False):
        grey = np.asarray(image, dtype=float)
        low, high = np.quantile(grey, [0.01, 0.99])
        axis.imshow(grey, cmap="gray", vmin=low, vmax=high, origin="lower")
        if outline is not None and np.asarray(outline).any():
            axis.contour(np.asarray(outline, dtype=float), [0.5], colors=MASK_COLOUR, linewidths=1.5)
        axis.set(title=title, xticks=[], yticks=[])
        axis.title.set_size(9)
    figure.tight_layout()
    return figure


def isosurface(surfaces: dict[str, torch.Tensor], alt: str) -> Turnable:
    """Draw interactive isosurfaces at 0.5 of volumes ``(..., D, H, W)`` with leading sides 1.

    ``alt`` is the alternative text of the figure.
    """
    figure = go.Figure()
    for (name, volume), colour in zip(surfaces.items(), COLOURS, strict=False):
        cube = np.pad(_cube(volume), 1)
        if not cube.min() < 0.5 < cube.max():
            continue
        vertices, faces, _, _ = marching_cubes(cube, 0.5)
        z, y, x = (vertices - 1).T.round(2)
        i, j, k = faces.T
        figure.add_mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, color=colour, opacity=0.55, name=name, showlegend=True)
    side = _cube(next(iter(surfaces.values()))).shape[-1]
    axis = dict(range=[0, side], showbackground=False, gridcolor="#bbbbbb", showspikes=False)
    figure.update_layout(
        scene=dict(xaxis=axis, yaxis=axis, zaxis=axis, aspectmode="cube"),
        margin=dict(l=0, r=0, t=0, b=0), height=420, autosize=True, legend=dict(x=0, y=1),
    )  # fmt: skip
    return Turnable(figure, alt)


class Turnable:
    """Interactive plotly figure that works in the book and in every notebook viewer; ``alt`` is its alternative text.

    The built book uses its HTML form, which needs only the book's own copy of plotly.js; JupyterLab, VS Code and Colab use the
    plotly form and draw it themselves.
    """

    def __init__(self, figure: go.Figure, alt: str) -> None:
        self.figure, self.alt = figure, alt

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        if not os.environ.get("VOXUDA_BOOK"):
            return {"text/plain": self.alt, **self.figure._repr_mimebundle_(include, exclude)}
        drawn = self.figure.to_html(
            full_html=False, include_plotlyjs=False, include_mathjax=False, config={"responsive": True, "displaylogo": False}
        )
        page = f'<div role="figure" aria-label="{html.escape(self.alt, quote=True)}">{drawn}</div>'
        return {"text/plain": self.alt, "text/html": page, "application/vnd.plotly.v1+json": self.figure.to_plotly_json()}


def curves(values: dict[str, Sequence[float]], xlabel: str, ylabel: str, *, x: Sequence[float] | None = None) -> Figure:
    """Plot up to four labelled curves over ``x``, or over their index, each with its own colour and dash."""
    figure, axis = plt.subplots(figsize=(6, 3), dpi=150)
    for (name, curve), colour, style in zip(values.items(), COLOURS, ("-", "--", ":", "-."), strict=False):
        at = range(len(curve)) if x is None else x
        axis.plot(at, curve, style, color=colour, marker="." if len(curve) < 50 else "", label=name)
    if x is None:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend(frameon=False)
    figure.tight_layout()
    return figure


def interval_dots(
    rows: dict[str, tuple[float, float, float]], xlabel: str, *, beside: dict[str, float] | None = None, beside_label: str = ""
) -> Figure:
    """Plot one line per row, with a dot at the mean, a line along its interval, and a cross at a value for comparison.

    ``rows`` has mean, low and high end by label; ``beside`` has the value for comparison, named ``beside_label``, by label.
    """
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.3 * len(rows)), dpi=150)
    means, lows, highs = np.transpose(list(rows.values()))
    axis.hlines(range(len(rows)), lows, highs, color=TRUTH_COLOUR, linewidth=2)
    axis.plot(means, range(len(rows)), "o", color=TRUTH_COLOUR, markersize=5, label="ours, 95 %")
    if beside:
        others = [beside.get(label, np.nan) for label in rows]
        axis.plot(others, range(len(rows)), "x", color=MASK_COLOUR, markersize=6, markeredgewidth=2, label=beside_label)
    _label_rows(figure, list(rows), xlabel, legend=bool(beside))
    return figure


def seed_dots(rows: dict[str, dict[str, Sequence[float]]], xlabel: str) -> Figure:
    """Plot one line per row, one dot per seed, and a bar at the mean.

    ``rows`` has the values of the seeds by label and by name of the series. Series differ in colour and marker.
    """
    figure, axis = plt.subplots(figsize=(7, 0.9 + 0.3 * len(rows)), dpi=150)
    names = list(dict.fromkeys(name for series in rows.values() for name in series))
    for i, (name, colour, marker) in enumerate(zip(names, COLOURS, "os^v", strict=False)):
        for row, series in enumerate(rows.values()):
            values = list(series.get(name, ()))
            height = row + 0.3 * (i - (len(names) - 1) / 2)  # series side by side, so that none hides another
            label = name if row == 0 else None
            axis.plot(values, [height] * len(values), marker, color=colour, alpha=0.75, markersize=4, label=label)
            axis.plot([np.mean(values)] * 2, [height - 0.2, height + 0.2], color=colour, linewidth=2)
    _label_rows(figure, list(rows), xlabel, legend=True)
    return figure


def _label_rows(figure: Figure, labels: list[str], xlabel: str, *, legend: bool) -> None:
    axis = figure.axes[0]
    axis.set(xlabel=xlabel, yticks=range(len(labels)), yticklabels=labels)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    if legend:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.tight_layout()
