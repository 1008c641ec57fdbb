"""Figures of the book, static ones with matplotlib and interactive ones with plotly."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from PIL import Image
from plotly.subplots import make_subplots
from skimage.measure import marching_cubes

MASK_COLOUR = "#d55e00"
TRUTH_COLOUR = "#0072b2"
COLOURS = (TRUTH_COLOUR, MASK_COLOUR, "#009e73", "#cc79a7")
"""Colours of Okabe and Ito, distinct for readers with any colour vision."""


def _cube(volume: torch.Tensor | np.ndarray) -> np.ndarray:
    array = np.asarray(volume.detach().cpu() if isinstance(volume, torch.Tensor) else volume, dtype=float)
    return array.reshape(array.shape[-3:])


def slices(
    volumes: Sequence[torch.Tensor],
    titles: Sequence[str],
    masks: Sequence[torch.Tensor | None] | None = None,
    *,
    columns: int | None = None,
    width: float = 7.5,
    text: float = 9.0,
) -> Figure:
    """Plot central z slices of volumes ``(..., D, H, W)``, leading sides 1, with masks of the same shape outlined in orange.

    ``columns``, ``width`` and ``text`` are those of :func:`panels`.
    """

    def middle(volume: torch.Tensor) -> np.ndarray:
        return _cube(volume)[volume.shape[-3] // 2]

    outlines = None if masks is None else [None if mask is None else middle(mask) for mask in masks]
    return panels([*map(middle, volumes)], titles, outlines, columns=columns, width=width, text=text)


def panels(
    images: Sequence[np.ndarray | torch.Tensor],
    titles: Sequence[str],
    outlines: Sequence[np.ndarray | torch.Tensor | None] | None = None,
    *,
    columns: int | None = None,
    width: float = 7.5,
    text: float = 9.0,
) -> Figure:
    """Plot grey images ``(H, W)``, first row at the bottom, each scaled from its 1st to its 99th percentile.

    Masks ``(H, W)`` in ``outlines`` are outlined in orange; a row has ``columns`` panels, by default all of them. The figure is
    ``width`` inches wide, with titles of ``text`` points.
    """
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    heights = [max(i.shape[0] / i.shape[1] for i in images[row * columns : (row + 1) * columns]) for row in range(rows)]
    above = (0.15 + 0.15 * max(len(title.splitlines()) for title in titles)) * text / 9
    size = (width, sum(width / columns * height + above for height in heights))
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
        axis.title.set_size(text)
    figure.tight_layout()
    return figure


def scale_bar(axis: Axes, pixels: float, label: str) -> None:
    """Draw a bar ``pixels`` long with its label, such as ``"100 Å"``, in the lower left corner of an image."""
    line = AnchoredSizeBar(axis.transData, pixels, label, "lower left", pad=0.3, sep=2, color="white", frameon=False)
    line.size_bar.get_children()[0].set(linewidth=2)
    for part in (line.txt_label.get_children()[0], line.size_bar.get_children()[0]):
        part.set_path_effects([patheffects.withStroke(linewidth=2, foreground="black")])
    axis.add_artist(line)


def slider(
    steps: dict[str, Sequence[np.ndarray | torch.Tensor]],
    titles: Sequence[str],
    alt: str,
    *,
    prefix: str = "",
    start: int = 0,
    bars: Sequence[tuple[float, str] | None] = (),
) -> Turnable:
    """Draw a row of images that a slider changes.

    Parameters
    ----------
    steps : dict
        Images of each step by its label, one per title, grey ``(H, W)`` and scaled as by :func:`panels`, or coloured
        ``(H, W, 3)`` from 0 to 1. The first row is at the bottom. The images of a panel have one shape.
    titles : sequence of str
        One title per panel.
    alt : str
        Alternative text of the figure.
    prefix : str
        Text before the label of the current step.
    start : int
        The step shown first.
    bars : sequence
        For each panel, length in pixels and label of a scale bar, or None.
    """
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.02)
    pictures = [[_png(image) for image in images] for images in steps.values()]
    shapes = [np.shape(image) for image in next(iter(steps.values()))]
    for column, (source, shape) in enumerate(zip(pictures[start], shapes, strict=True), start=1):
        figure.add_trace(go.Image(source=source, hoverinfo="skip"), 1, column)
        figure.update_xaxes(visible=False, constrain="domain", range=[-0.5, shape[1] - 0.5], row=1, col=column)
        figure.update_yaxes(
            visible=False, constrain="domain", constraintoward="top", range=[shape[0] - 0.5, -0.5], row=1, col=column
        )
    for column, (bar, shape) in enumerate(zip(bars, shapes, strict=False), start=1):
        if bar:
            left, bottom, (pixels, label) = 0.05 * shape[1], 0.94 * shape[0], bar
            edge = dict(color="black", width=5), dict(color="white", width=3)
            for line in edge:
                figure.add_shape(
                    type="line", x0=left, x1=left + pixels, y0=bottom, y1=bottom, line=line, row=1, col=column
                )  # fmt: skip
            figure.add_annotation(
                x=left + pixels / 2, y=bottom, yshift=10, text=label, showarrow=False, bgcolor="rgba(0, 0, 0, 0.6)",
                font=dict(color="white", size=11), borderpad=1, row=1, col=column,
            )  # fmt: skip
    every = list(range(len(titles)))
    choices = [
        dict(method="restyle", label=label, args=[{"source": sources}, every])
        for label, sources in zip(steps, pictures, strict=True)
    ]
    above = dict(x=0, y=1, yanchor="bottom", pad=dict(b=28))
    figure.update_layout(
        sliders=[dict(steps=choices, active=start, currentvalue=dict(prefix=prefix), **above)],
        margin=dict(l=24, r=24, t=115, b=5), height=350, autosize=True, dragmode=False,
    )  # fmt: skip
    figure.update_annotations(patch=dict(font_size=13), selector=dict(yref="paper"))
    return Turnable(figure, alt, buttons=False)


def _png(image: np.ndarray | torch.Tensor) -> str:
    """Address that holds a PNG picture of an image, grey ``(H, W)`` or coloured ``(H, W, 3)``, its first row at the bottom."""
    values = np.asarray(image, dtype=float)
    if values.ndim == 2:
        low, high = np.quantile(values, [0.01, 0.99])
        values = (values - low) / max(high - low, 1e-12)
    levels = np.round(63 * np.clip(values, 0, 1)) * (255 / 63)  # 64 greys: noise then takes fewer bytes
    file = io.BytesIO()
    Image.fromarray(levels[::-1].astype(np.uint8)).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


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
    camera = dict(eye=dict(x=1.8, y=1.8, z=1.5), center=dict(z=-0.1))  # far enough to see all labels where it is narrow
    figure.update_layout(
        scene=dict(xaxis=axis, yaxis=axis, zaxis=axis, aspectmode="cube", camera=camera),
        margin=dict(l=0, r=0, t=0, b=0), height=420, autosize=True, legend=dict(x=0, y=1),
    )  # fmt: skip
    return Turnable(figure, alt)


class Turnable:
    """Interactive plotly figure that works in the book and in every notebook viewer; ``alt`` is its alternative text.

    The built book uses its HTML form, which needs only the book's own copy of plotly.js; JupyterLab, VS Code and Colab use the
    plotly form and draw it themselves. Without ``buttons`` the HTML form has no row of buttons above it.
    """

    def __init__(self, figure: go.Figure, alt: str, *, buttons: bool = True) -> None:
        self.figure, self.alt, self.buttons = figure, alt, buttons

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        if not os.environ.get("VOXUDA_BOOK"):
            return {"text/plain": self.alt, **self.figure._repr_mimebundle_(include, exclude)}
        config = {"responsive": True, "displaylogo": False} | ({} if self.buttons else {"displayModeBar": False})
        drawn = self.figure.to_html(full_html=False, include_plotlyjs=False, include_mathjax=False, config=config)
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

    ``rows`` maps labels to mean, low and high end; ``beside`` maps them to the compared value, ``beside_label`` in the legend.
    An infinite interval, that of one seed, is not drawn.
    """
    figure, axis = plt.subplots(figsize=(5.4, 0.9 + 0.25 * len(rows)), dpi=150)
    means, lows, highs = np.transpose([(m, *((low, high) if np.isfinite(low) else (m, m))) for m, low, high in rows.values()])
    axis.hlines(range(len(rows)), lows, highs, color=TRUTH_COLOUR, linewidth=2)
    axis.plot(means, range(len(rows)), "o", color=TRUTH_COLOUR, markersize=5, label="ours, 95 %")
    if beside:
        others = [beside.get(label, np.nan) for label in rows]
        axis.plot(others, range(len(rows)), "x", color=MASK_COLOUR, markersize=6, markeredgewidth=2, label=beside_label)
    _label_rows(figure, list(rows), xlabel, legend=bool(beside))
    return figure


def seed_dots(rows: dict[str, dict[str, Sequence[float]]], xlabel: str) -> Figure:
    """Plot one line per row, one dot per seed, and a bar at the mean.

    ``rows`` maps the label of a row and the name of a series to values, one per seed. Series differ in colour and marker.
    """
    names = list(dict.fromkeys(name for series in rows.values() for name in series))
    figure, axis = plt.subplots(figsize=(5.4, 0.9 + max(0.25, 0.12 * len(names)) * len(rows)), dpi=150)
    for i, (name, colour, marker) in enumerate(zip(names, COLOURS, "os^v", strict=False)):
        held = [(row, list(series[name])) for row, series in enumerate(rows.values()) if len(series.get(name, ()))]
        for row, values in held:
            height = row + 0.3 * (i - (len(names) - 1) / 2)  # series side by side, so that none hides another
            label = name if row == held[0][0] else None
            axis.plot(values, [height] * len(values), marker, color=colour, alpha=0.75, markersize=4, label=label)
            axis.plot([np.mean(values)] * 2, [height - 0.2, height + 0.2], color=colour, linewidth=2)
    _label_rows(figure, list(rows), xlabel, legend=True)
    return figure


def _label_rows(figure: Figure, labels: list[str], xlabel: str, *, legend: bool) -> None:
    axis = figure.axes[0]
    axis.set(xlabel=xlabel, yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))
    axis.grid(axis="x", alpha=0.3)
    if legend:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.tight_layout()
