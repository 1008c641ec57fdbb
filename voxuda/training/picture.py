"""Picture of a mask, outlined on three orthogonal slices of the volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from voxuda.data.sections import read_sections
from voxuda.training.tomograms import Tomogram

SIZE = 1000
"""Target width or height in pixels; small slices are enlarged by an integer factor."""

LINE = (255, 150, 0)

SECTIONS = 16
"""Sections read at a time."""


def draw(tomogram: Tomogram, mask: Path, sections: range, voxel_size: float, counts: list[np.ndarray], path: Path) -> None:
    """Write a PNG of the z, y and x slices that hold most of the mask, laid out as in a viewer with linked axes.

    Parameters
    ----------
    tomogram : Tomogram
        The segmented tomogram.
    mask : Path
        Its mask, an MRC file of the same shape.
    sections : range
        Sections of one volume, which are all sections unless the file is a stack.
    voxel_size : float
        Voxel size of the file in angstrom, for the scale bar; 0 omits the bar.
    counts : list of ndarray
        Foreground voxels of each section, row and column.
    path : Path
        Where the picture is written.
    """
    at = [int(values.argmax()) if values.any() else len(values) // 2 for values in counts]

    def slices(read: Callable[[int, int], np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut across z, x and y, reading a few sections at a time, since a file may be larger than memory."""
        rows, columns = [], []
        for start in range(sections.start, sections.stop, SECTIONS):
            part = read(start, min(start + SECTIONS, sections.stop))
            rows.append(part[:, at[1]])
            columns.append(part[:, :, at[2]])
        return read(sections[at[0]], sections[at[0]] + 1)[0], np.concatenate(columns).T, np.concatenate(rows)

    grey = slices(lambda start, stop: tomogram.read(start, stop)[0].numpy())
    inside = slices(lambda start, stop: read_sections(mask, start, stop) > 0)
    cut_z, cut_x, cut_y = grey
    low, high = np.percentile(cut_z, [0.5, 99.5])
    scale = max(1, SIZE // max(cut_z.shape[0] + cut_y.shape[0], cut_z.shape[1] + cut_x.shape[1]))
    panels = [panel(cut, of, low, high, scale) for cut, of in zip(grey, inside, strict=True)]
    gap, foot = 6, 22
    width = panels[0].width + gap + panels[1].width
    picture = Image.new("RGB", (width, panels[0].height + gap + panels[2].height + foot), "white")
    corners = [(0, 0), (panels[0].width + gap, 0), (0, panels[0].height + gap)]
    drawing = ImageDraw.Draw(picture)
    drawing.font = ImageFont.load_default(14)
    for name, place, image, corner in zip("zxy", (at[0], at[2], at[1]), panels, corners, strict=True):
        picture.paste(image, corner)
        drawing.text((corner[0] + 4, corner[1] + 2), f"{name} = {place}", fill=LINE, stroke_width=1, stroke_fill="black")
    if voxel_size:
        length = next(nm for nm in (500, 200, 100, 50, 20, 10, 5) if 10 * nm / voxel_size < cut_z.shape[1] / 2 or nm == 5)
        bar = round(10 * length / voxel_size * scale)
        drawing.line([(4, picture.height - 10), (4 + bar, picture.height - 10)], fill="black", width=3)
        drawing.text((10 + bar, picture.height - 19), f"{length} nm", fill="black")
    picture.thumbnail((2 * SIZE, 2 * SIZE))
    picture.save(path, "PNG")


def panel(cut: np.ndarray, inside: np.ndarray, low: float, high: float, scale: int) -> Image.Image:
    """Draw a slice ``(H, W)`` in grey from ``low`` to ``high``, enlarged ``scale`` times, with the outline of ``inside``."""
    grey = np.clip((cut - low) / max(high - low, 1e-30), 0, 1)
    pixels = np.repeat((255 * grey[..., None]).astype(np.uint8), 3, axis=2).repeat(scale, 0).repeat(scale, 1)
    large = inside.repeat(scale, 0).repeat(scale, 1)
    pixels[large & ~ndimage.binary_erosion(large, np.ones((3, 3)), border_value=1)] = LINE
    return Image.fromarray(pixels)
