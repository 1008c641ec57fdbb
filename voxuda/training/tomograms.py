"""Segment whole tomograms in blended overlapping tiles, with one layer of tiles in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from voxuda.data.files import write_atomically
from voxuda.data.mrc import Volume
from voxuda.data.sections import read_sections
from voxuda.errors import InputError
from voxuda.networks.voxresnet import target_batch_norm
from voxuda.signal.resize import linear_weights
from voxuda.training.evaluation import predict

BATCH = 8
"""Tiles per forward pass."""

SAMPLE = 64
"""Maximum number of tiles on which batch norm statistics are measured."""

BLANK = 5
"""Side in voxels of a square of one value that counts as blank, such as padding or what lies outside the field of view."""

FILLS = 2
"""Maximum number of padding values in a section. If uniform squares take more values, the volume is smooth, not padded."""

FLIPS = list(product((False, True), repeat=3))
"""The eight ways to mirror a volume in some of its axes."""


def positions(side: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles start along an axis of ``side`` voxels, every ``tile - overlap``, the last flush with the end.

    An axis shorter than a tile has one tile, which extends beyond its end.
    """
    last = max(side - tile, 0)
    return [*range(0, last, tile - overlap), last]


def blending(side: int, tile: int, overlap: int) -> torch.Tensor:
    """Return the blending weights ``(K, tile)`` of the tiles along an axis, which sum to 1 at every voxel of the axis.

    The window is sin², nearly 0 at a tile's faces, where the network sees zero padding. At an overlap of half a tile two
    neighbours already sum to sin² + cos² = 1; at other overlaps, and at the ends of the axis, they are divided by their sum.
    """
    window = torch.sin(torch.pi * (torch.arange(tile, dtype=torch.float64) + 0.5) / tile).square()
    starts = positions(side, tile, overlap)
    total = torch.zeros(max(side, tile), dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += window
    return torch.stack([window / total[start : start + tile] for start in starts]).float()


def find_blank(sections: torch.Tensor) -> torch.Tensor:
    """Find blank voxels of sections ``(n, H, W)``, in or near a uniform square of side ``BLANK`` and equal to its value."""

    def largest(values: torch.Tensor, side: int) -> torch.Tensor:
        rows = F.max_pool2d(values, (side, 1), 1, (side // 2, 0))
        return F.max_pool2d(rows, (1, side), 1, (0, side // 2))

    repeats = sections[..., 1:] == sections[..., :-1]
    if not (repeats[..., 1:] & repeats[..., :-1]).any():  # most volumes have no three equal values in a row
        return torch.zeros(sections.shape, dtype=torch.bool)
    even = largest(sections, BLANK) == -largest(-sections, BLANK)
    for section, places in zip(sections, even, strict=True):
        if len(section[places].unique()) > FILLS:
            places[:] = False
    # Near a square too, since the corners of a slanted border hold none.
    high = largest(sections.where(even, -torch.inf), 4 * BLANK + 1)
    low = -largest((-sections).where(even, -torch.inf), 4 * BLANK + 1)
    return ((sections == high) | (sections == low)) & sections.isfinite()


@dataclass(frozen=True)
class Tomogram:
    """A file as the network sees it, rescaled to another voxel size if necessary, and its tiling."""

    volume: Volume  #: The file, ``(D, H, W)``, or a stack ``(N, D, H, W)``, whose volumes are joined along z as layers.
    path: Path  #: Uncompressed file from which voxels are read.
    shape: tuple[int, int, int]  #: Sides of the volume that the network sees.
    tile: tuple[int, int, int]  #: Sides of a tile in network voxels, z, y, x.
    overlap: tuple[int, int, int]  #: Overlap of neighbouring tiles in network voxels, z, y, x.
    invert: bool = False  #: Whether protein is dark in the file.

    @property
    def sides(self) -> tuple[int, int, int]:
        """Numbers of sections, rows and columns of the file."""
        *sections, height, width = self.volume.data.shape
        return int(np.prod(sections)), height, width

    def read(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read sections ``start`` to ``stop`` of the file as values ``(n, H, W)``, protein bright, and where they are blank."""
        values = torch.from_numpy(read_sections(self.path, start, stop))
        blank = torch.cat([find_blank(section[None]) for section in values])  # one by one: a section may be large
        return -values if self.invert else values, blank

    def slab(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a layer of tiles as values ``(tile, h, w)`` at the network's voxel size, and where they are valid.

        A volume smaller than a tile is padded by its mirror image at the far faces.
        """
        depth = min(self.tile[0], self.shape[0] - start)
        if self.shape == self.sides:
            values, blank = self.read(start, start + depth)
            valid = ~blank
        else:
            values, shares = self._rescaled(start, depth)
            valid = shares > 0.5
        missing = [(0, max(tile - side, 0)) for tile, side in zip(self.tile, values.shape, strict=True)]
        if np.any(missing):
            values, valid = (torch.from_numpy(np.pad(part.numpy(), missing, "symmetric")) for part in (values, valid))
        return values, valid

    def _rescaled(self, start: int, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rescale values and shares of valid voxels, ``(depth, h, w)``, section by section, since sections may be large."""
        along_z, along_y, along_x = (linear_weights(old, new) for old, new in zip(self.sides, self.shape, strict=True))
        along_z = along_z[start : start + depth]
        used = along_z.any(0).nonzero()[:, 0]
        total = torch.zeros(2, depth, *self.shape[1:])
        for z in range(int(used[0]), int(used[-1]) + 1):
            values, blank = self.read(z, z + 1)
            section = along_y @ torch.cat([values.masked_fill(blank, 0), (~blank).float()]) @ along_x.T
            hit = along_z[:, z].nonzero()[:, 0]
            total[:, hit] += along_z[hit, z, None, None] * section[:, None]
        return total[0] / total[1].clamp_min(1e-6), total[1]

    def layers(self) -> list[tuple[int, int, torch.Tensor]]:
        """List the start of each layer of tiles, the start of the next, and the weights ``(tile,)`` along z."""
        arguments = self.shape[0], self.tile[0], self.overlap[0]
        starts = positions(*arguments)
        return list(zip(starts, [*starts[1:], self.shape[0]], blending(*arguments), strict=True))


def spread(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip outliers of values ``(n,)``, subtract the mean, and return them in double precision with their standard deviation.

    Values are clipped where they exceed the 0.1st to 99.9th percentile range by more than its width. Otherwise a hot voxel of
    a thousand deviations would set the scale of all others.
    """
    values = values.double()
    rank = max(1, len(values) // 1000)
    low, high = values.topk(rank, largest=False).values[-1], values.topk(rank).values[-1]
    if high > low:
        values = values.clamp(2 * low - high, 2 * high - low)
    values = values - values.mean()
    return values, values.square().mean().sqrt()


@dataclass(frozen=True)
class Survey:
    """Statistics from one pass through a tomogram."""

    mean: float  #: Typical mean of a tile, the median of the tiles' means.
    deviation: float  #: Typical deviation of a tile, the 90th percentile of the tiles' deviations.
    tiles: list[tuple[int, int, int]]  #: Positions z, y, x of non-overlapping tiles that hold specimen.
    #: Skewness of the tiles without blank voxels, after averaging over cubes of 4³ voxels; positive for bright particles on an
    #: even background.
    skewness: np.ndarray


def survey(tomogram: Tomogram) -> Survey:
    """Compute the statistics of a tomogram in one pass, without a progress bar.

    Raises
    ------
    InputError
        The tomogram holds NaN or infinity, or only blank voxels.
    """
    path = tomogram.volume.path
    places, means, deviations, skewness = [], [], [], []
    low, high = torch.inf, -torch.inf
    starts = [positions(side, tile, 0) for side, tile in zip(tomogram.shape, tomogram.tile, strict=True)]
    for z in starts[0]:
        slab, valid = tomogram.slab(z)
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        if not (torch.isfinite(slab) | ~valid).all():
            raise InputError(f"{path}: some voxels are NaN or infinite; replace them, for example by the mean.")
        for y, x in product(*starts[1:]):
            part = (slice(None), slice(y, y + tomogram.tile[1]), slice(x, x + tomogram.tile[2]))
            if valid[part].float().mean() < 0.1:
                continue
            centred, deviation = spread(slab[part][valid[part]])
            places.append((z, y, x))
            means.append(float(slab[part][valid[part]].double().mean()))
            deviations.append(float(deviation))
            if valid[part].all() and deviation > 0:
                smooth = F.avg_pool3d(centred.reshape(1, *tomogram.tile), 4)
                smooth = smooth - smooth.mean()
                skewness.append(float(smooth.pow(3).mean() / smooth.square().mean().sqrt().clamp_min(1e-9 * deviation) ** 3))
    if not places or max(deviations) == 0:
        if low == high:
            raise InputError(f"{path}: every voxel has the same value; give a tomogram with some signal in it.")
        little = "is mostly areas of one value, like a mask or an isolated molecule"
        raise InputError(f"{path}: {little}; give a tomogram, cropped to the specimen.")
    return Survey(float(np.median(means)), float(np.quantile(deviations, 0.9, method="lower")), places, np.array(skewness))


def normalise(tile: torch.Tensor, valid: torch.Tensor, typical: Survey | None, rule: str = "tile") -> torch.Tensor:
    """Normalise a tile ``(D, H, W)`` by its mean and the larger of its own and the typical deviation; blank voxels become 0.

    Training samples are normalised one by one, but all of them hold a particle. A tile without one has a smaller deviation,
    and dividing by it would amplify the noise, so the typical deviation is the minimum. The mean is the tile's own. With one
    mean for the whole tomogram, a slow change of brightness, as from ice of varying thickness, would be taken for protein,
    since batch norm statistics are fixed. The rule "volume" uses mean and deviation of the whole tomogram, which scores higher
    for the evenly bright microtubule (``results/microtubule.json``) but fails where brightness changes
    (``results/tomogram-rules.json``).
    Without ``typical`` the deviation is the tile's own.
    """
    result = torch.zeros_like(tile)
    if valid.any():
        whole = valid.all()
        values = tile.flatten() if whole else tile[valid]
        centred, deviation = spread(values)
        if typical and rule == "volume":
            centred, deviation = centred + (values.double().mean() - typical.mean), torch.tensor(typical.deviation)
        elif typical:
            deviation = deviation.clamp_min(typical.deviation)
        if deviation > 0 and whole:
            return (centred / deviation).float().reshape(tile.shape)
        if deviation > 0:
            result[valid] = (centred / deviation).float()
    return result


def sample(tomogram: Tomogram, looked: Survey, rule: str) -> torch.Tensor:
    """Draw up to ``SAMPLE`` tiles evenly from a tomogram, normalised, ``(N, 1, *tile)``."""
    places = [looked.tiles[i] for i in np.linspace(0, len(looked.tiles) - 1, SAMPLE).round().astype(int)]
    tiles = []
    for z in sorted({place[0] for place in places}):
        slab, valid = tomogram.slab(z)
        for _, y, x in sorted({place for place in places if place[0] == z}):
            part = (slice(None), slice(y, y + tomogram.tile[1]), slice(x, x + tomogram.tile[2]))
            tiles.append(normalise(slab[part], valid[part], looked, rule))
    return torch.stack(tiles)[:, None]


def measure_batch_norm(network: nn.Module, tomogram: Tomogram, looked: Survey, rule: str) -> None:
    """Replace a network's batch norm statistics by those of the tomogram's own tiles."""
    network.load_state_dict(target_batch_norm(network, sample(tomogram, looked, rule)), strict=False)
    network.eval()


def predict_tiles(network: nn.Module, tiles: torch.Tensor, flips: bool) -> torch.Tensor:
    """Predict foreground probabilities ``(B, 1, *tile)`` of tiles ``(B, *tile)``.

    With ``flips`` they are ``(B, 2, *tile)``, mean and standard deviation over the eight mirror images.
    """
    if not flips:
        return predict(network, tiles[:, None], BATCH)[:, None]
    turned = []
    for chosen in FLIPS:
        axes = [axis for axis, flip in enumerate(chosen, start=1) if flip]
        turned.append(predict(network, tiles.flip(axes)[:, None], BATCH).flip(axes))
    found = torch.stack(turned)
    return torch.stack([found.mean(0), found.std(0, correction=0)], 1)


def segment_layer(
    network: nn.Module, tomogram: Tomogram, start: int, typical: Survey | None, rule: str, flips: bool, bar: tqdm
) -> torch.Tensor:
    """Predict foreground probabilities of the layer of tiles that begins at section ``start``, blended along y and x.

    Returns
    -------
    Tensor
        ``(1, tile, h, w)``, or with ``flips`` ``(2, tile, h, w)``, see :func:`predict_tiles`; 0 where voxels are blank.
    """
    slab, valid = tomogram.slab(start)
    arguments = list(zip(slab.shape[1:], tomogram.tile[1:], tomogram.overlap[1:], strict=True))
    rows, columns = (list(zip(positions(*axis), blending(*axis), strict=True)) for axis in arguments)
    blended = torch.zeros(1 + flips, *slab.shape)
    places = list(product(rows, columns))
    for begin in range(0, len(places), BATCH):
        part = places[begin : begin + BATCH]
        boxes = [(slice(None), slice(y, y + len(wy)), slice(x, x + len(wx))) for (y, wy), (x, wx) in part]
        seen = [i for i, box in enumerate(boxes) if valid[box].any()]
        if seen:
            tiles = torch.stack([normalise(slab[boxes[i]], valid[boxes[i]], typical, rule) for i in seen])
            for i, found in zip(seen, predict_tiles(network, tiles, flips), strict=True):
                (_, along_y), (_, along_x) = part[i]
                blended[:, *boxes[i]] += found * along_y[:, None] * along_x
        bar.update(len(part))
    return blended.mul_(valid)


class Probabilities:
    """Probabilities on disk in half precision, written layer by layer, with a record of progress.

    The safetensors file ``progress`` is replaced as a whole after each layer. It holds the sums of the sections that the next
    layer adds to and, as text, what made them and the number of layers done. A process killed between the writes of the two
    files loses one layer, which is then written again over the same bytes.

    Parameters
    ----------
    folder : path
        An existing folder for the two files.
    tomogram : Tomogram
        The tomogram to segment.
    channels : int
        1, or 2 with the standard deviation over flips.
    made : dict
        What the values depend on.

    Raises
    ------
    InputError
        The files in the folder are damaged, or were made with another ``made``.
    """

    def __init__(self, folder: Path, tomogram: Tomogram, channels: int, made: dict) -> None:
        self.values, self.progress = folder / "probabilities", folder / "progress"
        self.tomogram, self.made = tomogram, made
        self.section = (channels, *tomogram.shape[1:])
        self.done, self.sums = 0, torch.zeros(channels, 0, 1, 1)
        if self.values.exists() and self.progress.exists():
            self._load()
        else:
            self.values.touch()

    def _load(self) -> None:
        try:
            with safe_open(self.progress, "pt") as file:
                record = json.loads(file.metadata()["record"])
                self.done, self.sums = record["done"], file.get_tensor("sums")
                differ = [name for name, value in self.made.items() if record["made_by"][name] != value]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.progress}: damaged; delete the folder {self.progress.parent} to start again.") from error
        if differ:
            begun = f"holds an unfinished mask of other {', '.join(differ)}; repeat the earlier command, or delete the folder"
            raise InputError(f"{self.progress.parent}: {begun}.")

    def compute(
        self, network: nn.Module, typical: Survey | None, rule: str, *, flips: bool = False, progress: bool = False
    ) -> None:
        """Segment the layers that are not done yet."""
        layers, tile = self.tomogram.layers(), self.tomogram.tile
        axes = zip(self.tomogram.shape[1:], tile[1:], self.tomogram.overlap[1:], strict=True)
        each = int(np.prod([len(positions(*axis)) for axis in axes]))
        name, total = self.tomogram.volume.path.name, each * len(layers)
        height, width = self.tomogram.shape[1:]
        with tqdm(total=total, initial=each * self.done, desc=name, unit="tile", disable=not progress) as bar:
            for start, end, along_z in layers[self.done :]:
                layer = segment_layer(network, self.tomogram, start, typical, rule, flips, bar)
                sums = layer.mul_(along_z[:, None, None])[:, :, :height, :width]
                sums[:, : self.sums.shape[1]] += self.sums
                self._append(start, sums[:, : end - start], sums[:, end - start :])

    def _append(self, start: int, finished: torch.Tensor, sums: torch.Tensor) -> None:
        """Write finished sections ``(C, n, h, w)`` from ``start`` on, and keep the sums that the next layer adds to."""
        with open(self.values, "r+b") as file:
            file.seek(2 * start * int(np.prod(self.section)))
            file.write(finished.movedim(0, 1).half().numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())  # before the file of progress says that they are there
        self.done, self.sums = self.done + 1, sums.contiguous()
        content = save({"sums": self.sums}, {"record": json.dumps({"done": self.done, "made_by": self.made})})
        write_atomically(lambda temporary: temporary.write_bytes(content), self.progress)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Read sections ``start`` to ``stop`` as the network sees them, ``(n, C, h, w)``."""
        count = int(np.prod(self.section))
        values = np.fromfile(self.values, np.float16, (stop - start) * count, offset=2 * start * count)
        return torch.from_numpy(values.reshape(stop - start, *self.section)).float()

    def on_file_grid(self, sections: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the probabilities on the file's voxel grid, ``sections`` at a time, as first section and ``(n, C, H, W)``."""
        depth = self.tomogram.sides[0]
        weights = [linear_weights(old, new) for old, new in zip(self.tomogram.shape, self.tomogram.sides, strict=True)]
        for start in range(0, depth, sections):
            stop = min(start + sections, depth)
            if self.tomogram.shape == self.tomogram.sides:
                yield start, self.read(start, stop)
                continue
            along_z = weights[0][start:stop]
            used = along_z.any(0).nonzero()[:, 0]
            first, last = int(used[0]), int(used[-1]) + 1
            wide = weights[1] @ self.read(first, last) @ weights[2].T
            yield start, torch.einsum("zk,kcyx->zcyx", along_z[:, first:last], wide)
