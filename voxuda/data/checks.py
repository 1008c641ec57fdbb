"""Describe your own subtomograms and warn about what looks suspicious."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage, stats

from voxuda.data.subtomograms import VOXEL_SIZES, SubtomogramFolder
from voxuda.signal.normalise import zscore


@dataclass
class Report:
    """Result of :func:`examine`."""

    rows: dict[str, str] = field(default_factory=dict)  #: Each property and its value.
    warnings: list[str] = field(default_factory=list)  #: Suspicious findings, one sentence each.
    dark: bool = False  #: Whether protein is dark, judged by the masks.
    leans_dark: bool = False  #: Whether nearly all volumes without masks lean dark.
    inside_out: bool = False  #: Whether the masks seem to be 1 outside the molecule.
    keep_voxels: float | None = (
        None  #: Voxel size in angstrom to keep by cropping, where resampling leads out of the usual range.
    )


def examine(folder: SubtomogramFolder, volumes: torch.Tensor, masks: torch.Tensor | None, noise_level: float) -> Report:
    """Report the properties of subtomograms and what looks suspicious.

    Parameters
    ----------
    folder : SubtomogramFolder
        Folder that the samples were read from.
    volumes : Tensor
        ``(N, 1, D, D, D)`` in the units of the files, from :meth:`voxuda.data.subtomograms.SubtomogramFolder.stack`.
    masks : Tensor or None
        ``(N, 1, D, D, D)`` bool.
    noise_level : float
        Standard deviation measured by the noise module, relative to that of a volume.
    """
    report = Report()
    normal = zscore(volumes)
    _boxes(report, folder, volumes.shape[-1])
    mean, deviation = volumes.mean(dim=(1, 2, 3, 4)).median(), volumes.std(dim=(1, 2, 3, 4)).median()
    # A mean near zero agrees to three digits across processors; the fourth can differ.
    report.rows["values"] = f"mean {mean:.3g}, standard deviation {deviation:.4g} (medians of the samples)"
    share = noise_level**2  # of a variance of 1
    report.rows["high frequencies"] = f"{share:.1%} of the variance, mostly noise"
    if share < 0.001:
        report.warnings.append("the volumes have almost no high frequencies, so the noise module will measure almost no noise.")
    if masks is None:
        report.rows["masks"] = "none: the samples can be a target to train on, not to be scored on"
        _skewness(report, normal)
    else:
        _foreground(report, folder, masks)
        _contrast(report, normal, masks)
    return report


def _boxes(report: Report, folder: SubtomogramFolder, side: int) -> None:
    """Add what the headers say about boxes, classes and voxel sizes."""
    entries = folder.entries
    shapes = Counter(entry.shape for entry in entries)
    smallest = min(map(min, shapes))
    classes = Counter(entry.name for entry in entries)
    specimens = {entry.group for entry in entries if entry.group}
    before, after = entries[0].voxel_size, folder.voxel_size
    report.rows |= {
        "samples": str(len(folder)),
        "classes": ", ".join(f"{name} {n}" for name, n in sorted(classes.items())),
        **({"specimens": str(len(specimens))} if specimens else {}),
        "box": ", ".join(" x ".join(map(str, shape)) for shape in shapes) + f" voxels, read as {side} x {side} x {side}",
        "voxel size": f"{before:.2f} Å, read as {after:.2f} Å" if before else "not in the headers",
    }
    low, high = VOXEL_SIZES
    if after and not low <= after <= high:
        crops = smallest >= side
        remedy = "convert the boxes with --voxel-size" if crops else f"extract boxes of at least {side} voxels"
        what = f"voxels are read as {after:.2f} Å, but networks here learn from {low:g} to {high:g} Å"
        report.warnings.append(f"{what}; {remedy}, or check that their size is in angstrom.")
        report.keep_voxels = before if crops and low <= before <= high else None
    if cropped := sum(n for shape, n in shapes.items() if len(set(shape)) > 1):
        report.warnings.append(f"{cropped} boxes are not cubes; voxels outside the central cube are cropped.")
    if smallest < side:
        report.warnings.append(f"boxes of {smallest} voxels are upsampled to {side}; their highest frequencies will be empty.")
    if len(folder) < 2:
        report.warnings.append("one sample is too few: training and testing need at least 2.")


def _foreground(report: Report, folder: SubtomogramFolder, masks: torch.Tensor) -> None:
    """Add the foreground share of masks ``(N, 1, D, D, D)``, and warn about empty, full and inverted masks."""
    shares = masks.float().mean(dim=(1, 2, 3, 4))
    least, median, most = shares.min(), shares.median(), shares.max()
    report.rows["masks"] = f"{len(masks)}, foreground min {least:.2%}, median {median:.2%}, max {most:.2%}"
    for what, chosen in [("empty", shares == 0), ("full", shares == 1)]:
        names = [folder.entries[i].label for i in chosen.nonzero()[:, 0].tolist()]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            report.warnings.append(f"the mask is {what} in {', '.join(names[:3])}{more}.")
    faces = torch.cat([masks.select(axis, at).flatten(1) for axis in (2, 3, 4) for at in (0, -1)], 1).float().mean(1)
    partly = (shares > 0) & (shares < 1)
    report.inside_out = bool(partly.any() and shares[partly].median() > 0.5 and faces[partly].median() > 0.5)
    if report.inside_out:
        filled = f"{shares[partly].median():.0%} of a box and {faces[partly].median():.0%} of its faces (medians)"
        report.warnings.append(f"the masks fill {filled}, so they seem to be 1 outside the molecule; they must be 1 inside.")


def _skewness(report: Report, normal: torch.Tensor) -> None:
    """Estimate the polarity of volumes ``(N, 1, D, D, D)`` without masks.

    After smoothing, bright objects on a uniform background have positive skewness.
    """
    smoothed = ndimage.gaussian_filter(normal[:, 0].numpy(), (0, 2, 2, 2))
    skewness = stats.skew(smoothed.reshape(len(smoothed), -1), axis=1)
    bright = int((skewness > 0).sum())
    report.rows["polarity"] = (
        f"not known without masks; smoothed, {bright} of {len(normal)} boxes lean bright (skewness {np.median(skewness):+.2f})"
    )
    report.leans_dark = len(normal) >= 10 and bright <= len(normal) / 10
    if report.leans_dark:
        report.warnings.append("nearly all boxes lean dark: if protein is dark in them, convert them with --invert.")


def _contrast(report: Report, normal: torch.Tensor, masks: torch.Tensor) -> None:
    """Determine the polarity from masks ``(N, 1, D, D, D)``.

    It is the sign of the mean inside minus the mean outside, in volumes of mean 0 and variance 1.
    """
    if report.inside_out:
        report.rows["polarity"] = "not known: the masks seem to be 1 outside the molecule"
        return
    usable = [i for i, mask in enumerate(masks) if 0 < mask.sum() < mask.numel()]
    if not usable:
        report.rows["polarity"] = "not known: no mask has both an inside and an outside"
        return
    steps = torch.stack([normal[i][masks[i]].mean() - normal[i][~masks[i]].mean() for i in usable])
    mean, error = float(steps.mean()), float(steps.std(correction=0)) / len(steps) ** 0.5
    report.dark = mean < -2 * error
    seen = "protein is bright" if mean > 2 * error else "protein is dark" if report.dark else "not clear"
    report.rows["polarity"] = (
        f"{seen}: inside the masks minus outside {mean:+.2f} ± {error:.2f} standard deviations of a volume,"
        f" above 0 in {(steps > 0).float().mean():.0%} of the samples"
    )
    if report.dark:
        report.warnings.append("protein is dark in these volumes, and must be bright: convert them with --invert.")
