"""Masks made without a network, as references for a network's score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import ndimage
from skimage.filters import threshold_otsu

from voxuda.data.domain import Domain
from voxuda.errors import InputError
from voxuda.training.evaluation import iou_and_dice

SIGMAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Widths of the Gaussian blur to choose from, in voxels."""

SHARES = tuple(percent / 100 for percent in range(1, 16))
"""Foreground shares to choose from."""

LABELLED = 96
"""Maximum number of source samples on which settings are chosen."""


@dataclass(frozen=True)
class Found:
    """A reference's masks of the test samples."""

    masks: torch.Tensor  #: ``(N, D, H, W)`` bool.
    chosen: dict[str, float]  #: The settings with the best mean IoU on labelled source samples.


Reference = Callable[[Domain, Domain, torch.Tensor, torch.Generator], Found]
"""A function of the labelled source, the unlabelled target samples for training, the volumes ``(N, 1, D, H, W)`` of the test
samples (for other-mask their masks), and a generator."""


def blur_threshold(source: Domain, target: Domain, volumes: torch.Tensor, generator: torch.Generator) -> Found:
    """Blur each volume and take the brightest share of its voxels; width and share are chosen on the source."""
    iou = blur_scores(_some(source, generator))
    width, share = divmod(int(iou.argmax()), len(SHARES))
    chosen = {"sigma": SIGMAS[width], "share": SHARES[share]}
    order = _by_brightness(volumes, chosen["sigma"])
    brightest = order[:, : _count(chosen["share"], order.shape[1])]
    masks = torch.zeros(order.shape, dtype=torch.bool).scatter_(1, brightest, True)
    return Found(masks.reshape(volumes[:, 0].shape), chosen)


def blur_scores(domain: Domain) -> torch.Tensor:
    """Compute the mean IoU of the brightest voxels of blurred volumes by ``SIGMAS`` and ``SHARES``, ``(6, 15)``, 0 to 1."""
    assert domain.masks is not None
    truth = domain.masks.flatten(1)
    size = truth.sum(1, keepdim=True)
    taken = torch.tensor([_count(share, truth.shape[1]) for share in SHARES])
    scores = []
    for sigma in SIGMAS:  # one sort of the voxels gives the masks of all shares
        hits = truth.gather(1, _by_brightness(domain.volumes, sigma)).cumsum(1)[:, taken - 1]
        scores.append((hits.double() / (taken + size - hits)).mean(0))
    return torch.stack(scores)


def otsu(source: Domain, target: Domain, volumes: torch.Tensor, generator: torch.Generator) -> Found:
    """Blur each volume and take the voxels above its Otsu threshold; the width is chosen on the source."""

    def masks(of: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.stack([volume > threshold_otsu(volume.numpy()) for volume in _blur(of, sigma)])

    sigma = _choose(masks, SIGMAS, _some(source, generator))
    return Found(masks(volumes, sigma), {"sigma": sigma})


def ball(source: Domain, target: Domain, volumes: torch.Tensor, generator: torch.Generator) -> Found:
    """Take a ball around the centre of each volume, regardless of its content.

    The centre is voxel ``D // 2`` of each axis. The radius, in steps of half a voxel, is chosen on the source.
    """

    def masks(of: torch.Tensor, radius: float) -> torch.Tensor:
        z, y, x = torch.meshgrid(*(torch.arange(n) - n // 2 for n in of.shape[2:]), indexing="ij")
        return (z**2 + y**2 + x**2 <= radius**2).expand(of[:, 0].shape)

    radii = [step / 2 for step in range(1 + min(volumes.shape[2:]))]
    radius = _choose(masks, radii, _some(source, generator))
    return Found(masks(volumes, radius), {"radius": radius})


def other_mask(source: Domain, target: Domain, masks: torch.Tensor, generator: torch.Generator) -> Found:
    """Give each test sample the mask of the next, in a random cyclic order.

    It needs the masks of the test samples ``(N, 1, D, H, W)`` and uses no volume. It shows how well a mask can be guessed
    without the image, from the size, shape and place of other masks.

    Raises
    ------
    InputError
        There are fewer than 2 samples.
    """
    if len(masks) < 2:
        raise InputError(f"other-mask: {len(masks)} test sample; it needs at least 2, one for the mask of the other.")
    order = torch.randperm(len(masks), generator=generator)
    given = torch.empty_like(masks[:, 0])
    given[order] = masks[order.roll(1), 0]
    return Found(given, {})


REFERENCES: dict[str, Reference] = {"blur-threshold": blur_threshold, "otsu": otsu, "ball": ball, "other-mask": other_mask}
"""All references by name."""


def find(name: str, source: Domain, target: Domain, test: Domain, generator: torch.Generator) -> Found:
    """Make masks of the test samples by the named reference; only other-mask sees target labels, those of the test samples."""
    seen = test.masks if name == "other-mask" else test.volumes
    assert seen is not None
    return REFERENCES[name](source, dataclasses.replace(target, masks=None), seen, generator)


def _some(source: Domain, generator: torch.Generator) -> Domain:
    """Draw the samples on which settings are chosen."""
    return source.subset(torch.randperm(len(source), generator=generator)[:LABELLED])


def _choose(masks: Callable[[torch.Tensor, float], torch.Tensor], settings: Sequence[float], labelled: Domain) -> float:
    """Return the setting whose masks have the best mean IoU on a labelled domain."""
    assert labelled.masks is not None
    truth = labelled.masks[:, 0]
    return max(settings, key=lambda setting: float(iou_and_dice(masks(labelled.volumes, setting), truth)[0].mean()))


def _blur(volumes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur each of the volumes ``(N, 1, D, H, W)``; returns ``(N, D, H, W)``."""
    return torch.from_numpy(ndimage.gaussian_filter(volumes[:, 0].numpy(), (0, sigma, sigma, sigma)))


def _by_brightness(volumes: torch.Tensor, sigma: float) -> torch.Tensor:
    """Indices of the voxels of each blurred volume, the brightest first, ``(N, D * H * W)``."""
    return _blur(volumes, sigma).flatten(1).argsort(dim=1, descending=True, stable=True)


def _count(share: float, voxels: int) -> int:
    return max(1, round(share * voxels))
