"""Whole tomograms: overlapping tiles, blended; one layer of them in memory at a time."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import product
from pathlib import Path

import mrcfile
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from tqdm import tqdm

from voxuda.data.files import write_atomically
from voxuda.data.mrc import Volume, read_mrc
from voxuda.errors import InputError
from voxuda.training.evaluation import predict

HEADER = 1024
"""Bytes before the first voxel of an MRC file without an extended header."""

SECTIONS = 16
"""How many sections of a tomogram are looked at to know it again."""

BATCH = 8
"""Tiles in the network at a time."""

COMPRESSED = (".gz", ".bz2")
"""Endings of files that cannot be read piece by piece."""


def positions(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start along an axis of ``side`` voxels: every ``tile - overlap``, the last one flush with the end.

    An axis shorter than a tile has one tile, which reaches beyond its end.
    """
    last = max(side - tile, 0)
    return [*range(0, last, tile - overlap), last]


def blending(side: int, tile: int, overlap: int) -> torch.Tensor:
    """Weight of each of an axis's tiles at each of its voxels, ``(K, tile)``; they sum to 1 at every voxel of the axis.

    The window is sin², nearly 0 at a tile's faces, where the network sees zeros for the surroundings. At an overlap of half a
    tile two neighbours sum to sin² + cos² = 1 by themselves; elsewhere, and at the ends of the axis, they are divided by
    their sum.
    """
    window = torch.sin(torch.pi * (torch.arange(tile, dtype=torch.float64) + 0.5) / tile).square()
    starts = positions(side, tile, overlap)
    total = torch.zeros(max(side, tile), dtype=torch.float64)
    for start in starts:
        total[start : start + tile] += window
    return torch.stack([window / total[start : start + tile] for start in starts]).float()


def read_slab(path: str | Path, start: int, stop: int) -> torch.Tensor:
    """Sections ``start`` to ``stop`` of a tomogram, ``(stop - start, H, W)`` float32; the file is closed again.

    Were it kept open, the pages of the map read so far would count as memory in use.
    """
    return torch.from_numpy(read_mrc(path, memory_map=True).data[start:stop].astype(np.float32))


def deviations(volumes: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each of ``(..., D, H, W)`` volumes, ``(..., 1, 1, 1)``."""
    axes = (-3, -2, -1)
    return (volumes - volumes.mean(axes, keepdim=True)).square().mean(axes, keepdim=True).sqrt()


def survey(path: str | Path, tile: int) -> tuple[Volume, float]:
    """Open a tomogram ``(D, H, W)``, its voxels left on disk, and look once through all of it.

    Parameters
    ----------
    path : path
        An MRC file.
    tile : int
        In voxels.

    Returns
    -------
    tuple
        The tomogram, and its typical deviation: the root of the mean variance within tiles that stand side by side.

    Raises
    ------
    InputError
        See :func:`voxuda.data.mrc.read_mrc`; or the file is compressed, a stack, holds NaN or infinity, or is constant.
    """
    if Path(path).suffix.lower() in COMPRESSED:
        raise InputError(f"{path}: a compressed tomogram cannot be read piece by piece; unpack it first.")
    volume = read_mrc(path, memory_map=True)
    volume.check_is_volume()
    if volume.data.ndim != 3:
        raise InputError(f"{path}: shape {volume.data.shape} is a stack; give one tomogram (D, H, W).")
    low, high, spread = torch.inf, -torch.inf, []
    depth, height, width = volume.data.shape
    for z in positions(depth, tile, 0):
        slab = read_slab(path, z, z + tile)
        if not torch.isfinite(slab).all():
            raise InputError(f"{path}: some voxels are NaN or infinite; replace them, for example by the mean.")
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        places = product(positions(height, tile, 0), positions(width, tile, 0))
        spread += [float(deviations(slab[:, y : y + tile, x : x + tile])) for y, x in places]
    if low == high:
        raise InputError(f"{path}: every voxel has the same value; give a tomogram with some signal in it.")
    return volume, float(np.sqrt(np.mean(np.square(spread))))


def normalised(tiles: torch.Tensor, typical: float) -> torch.Tensor:
    """Tiles ``(B, 1, tile, tile, tile)``, each less its mean, over its deviation or the tomogram's typical one, if larger.

    Training samples are normalised one by one, but all of them hold a particle. A tile without one has less spread, and would
    have its noise blown up; the typical deviation sets a limit. The mean stays the tile's own: batch norm statistics are
    fixed, so that after one mean for a whole tomogram a slow change of brightness, as from ice that grows thicker, reads as
    protein. On a simulated tomogram with such a change, half of it empty, at a signal-to-noise ratio of 0.03 and 0.3, this
    rule's IoU was 0.69 and 0.67, that of each tile by itself 0.67 and 0.35, of the tomogram as a whole 0.09 and 0.64 (measured
    again in ``tests/training/test_tomograms.py``). Many gold beads in view defeat all three; erase them first.
    """
    centred = tiles - tiles.mean((-3, -2, -1), keepdim=True)
    return centred / deviations(tiles).clamp_min(max(typical, 1e-12))


def check_tiling(tile: int, overlap: int) -> None:
    """Refuse a tile that the network cannot halve three times, or an overlap that is not part of it."""
    if tile % 8 or tile < 16:
        raise InputError(f"tile is {tile}; it must be a multiple of 8 and at least 16, best the side trained on.")
    if not 0 <= overlap < tile:
        raise InputError(f"overlap is {overlap}; it must be at least 0 and less than the tile of {tile}, best half of it.")


def mirrored(volume: torch.Tensor, tile: int) -> torch.Tensor:
    """Fill ``(D, H, W)`` up to at least ``tile`` voxels a side, mirrored in its far faces."""
    missing = [(0, max(tile - side, 0)) for side in volume.shape]
    return torch.from_numpy(np.pad(volume.numpy(), missing, "symmetric")) if max(missing) > (0, 0) else volume


def made_by(network: nn.Module, path: str | Path, tile: int, overlap: int) -> dict:
    """What decides a mask: SHA-256 of the tomogram and of the weights, and the tiling.

    Of the tomogram the size, the header and 16 sections from first to last are taken, so that a copy, or one moved elsewhere,
    is the same tomogram. One changed in other sections alone, under the same header, is not told apart.
    """
    weights = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        weights.update(name.encode() + tensor.cpu().numpy().tobytes())
    data = read_mrc(path, memory_map=True).data
    with open(path, "rb") as file:
        tomogram = hashlib.sha256(f"{os.fstat(file.fileno()).st_size} ".encode() + file.read(HEADER))
    for z in sorted({round(z) for z in np.linspace(0, len(data) - 1, SECTIONS)}):
        tomogram.update(data[z].tobytes())
    return {"tomogram": tomogram.hexdigest(), "weights": weights.hexdigest(), "tile": tile, "overlap": overlap}


def label(made: dict) -> str:
    """The line in a mask's MRC header by which the same command knows it again."""
    return "voxuda segment " + hashlib.sha256(json.dumps(made).encode()).hexdigest()[:32]


def is_made(path: str | Path, made: dict) -> bool:
    """Whether a finished mask at ``path`` is the one that ``made`` describes.

    Raises
    ------
    InputError
        Another file stands there.
    """
    if not Path(path).exists():
        return False
    with open(path, "rb") as file:
        if label(made).encode() not in file.read(HEADER):
            raise InputError(f"{path}: the file exists, made from another tomogram, run or tiling; choose another --out.")
    return True


class Partial:
    """An unfinished mask: ``NAME.part``, an MRC file, and ``NAME.progress``, which says how far it is.

    The progress file is a safetensors file, replaced as a whole after each layer of tiles. It holds the sums of the sections
    that the next layer adds to, and as text what made them, the layers done and the foreground voxels written. A process
    that is killed between the two files' writes loses one layer, which then is written anew over the same bytes.

    Parameters
    ----------
    path : path
        Where the finished mask shall stand.
    volume : Volume
        The tomogram.
    made : dict
        See :func:`made_by`.

    Raises
    ------
    InputError
        What stands there was made by something else, or cannot be read or written.
    """

    def __init__(self, path: str | Path, volume: Volume, made: dict) -> None:
        self.path = Path(path)
        self.part, self.progress = (self.path.with_name(self.path.name + end) for end in (".part", ".progress"))
        self.shape, self.made = volume.data.shape, made
        self.done, self.foreground, self.sums = 0, 0, torch.zeros(0, 1, 1)
        if self.part.exists() and self.progress.exists():
            self._load()
        else:
            self._create(volume)

    def _load(self) -> None:
        try:
            with safe_open(self.progress, "pt") as file:
                record = json.loads(file.metadata()["record"])
                self.done, self.foreground, self.sums = record["done"], record["foreground"], file.get_tensor("sums")
                differ = [name for name, value in self.made.items() if record["made_by"][name] != value]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.progress}: damaged; delete it to begin anew.") from error
        if differ:
            raise InputError(f"{self.part}: begun with other {', '.join(differ)}; go on with those, or delete it.")

    def _create(self, volume: Volume) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.progress.unlink(missing_ok=True)
            with mrcfile.new_mmap(self.part, self.shape, mrc_mode=0, overwrite=True) as mrc:
                mrc.add_label(label(self.made))
                if volume.voxel_size:
                    mrc.voxel_size = volume.voxel_size
                mrc.header.origin = volume.origin
                mrc.header.nxstart, mrc.header.nystart, mrc.header.nzstart = volume.start
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"{self.part}: cannot be written ({error.strerror}); free some space or choose a writable folder.")

    def append(self, start: int, mask: torch.Tensor, sums: torch.Tensor) -> None:
        """Write the finished sections ``(n, H, W)`` bool from ``start`` on; keep the sums that the next layer adds to."""
        try:
            with open(self.part, "r+b") as file:
                file.seek(HEADER + start * self.shape[1] * self.shape[2])
                file.write(mask.to(torch.int8).numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self.done, self.foreground, self.sums = self.done + 1, self.foreground + int(mask.sum()), sums.clone()
        record = {"done": self.done, "foreground": self.foreground, "made_by": self.made}
        content = save({"sums": self.sums}, {"record": json.dumps(record)})
        write_atomically(lambda temporary: temporary.write_bytes(content), self.progress)

    def finish(self) -> Path:
        """Complete the header's statistics and give the mask its name."""
        mean = self.foreground / np.prod(self.shape, dtype=float)
        with mrcfile.mmap(self.part, mode="r+") as mrc:
            header = mrc.header
            header.dmin, header.dmax = int(mean == 1), int(mean > 0)
            header.dmean, header.rms = mean, np.sqrt(mean * (1 - mean))
        os.replace(self.part, self.path)
        self.progress.unlink()
        return self.path


def segment_layer(network: nn.Module, slab: torch.Tensor, typical: float, tile: int, overlap: int, bar: tqdm) -> torch.Tensor:
    """Foreground probability ``(tile, H, W)`` of one layer of tiles, blended along y and x.

    Parameters
    ----------
    network : Module
        Logits ``(B, 2, tile, tile, tile)`` of ``(B, 1, tile, tile, tile)``.
    slab : Tensor
        ``(tile, H, W)``, any unit; H and W at least ``tile``.
    typical : float
        See :func:`survey`.
    tile, overlap : int
        In voxels.
    bar : tqdm
        Counts tiles.
    """
    rows, columns = (zip(positions(side, tile, overlap), blending(side, tile, overlap), strict=True) for side in slab.shape[1:])
    places = list(product(rows, columns))
    blended = torch.zeros(slab.shape)
    for begin in range(0, len(places), BATCH):
        part = places[begin : begin + BATCH]
        tiles = torch.stack([slab[None, :, y : y + tile, x : x + tile] for (y, _), (x, _) in part])
        probabilities = predict(network, normalised(tiles, typical), BATCH)
        for ((y, along_y), (x, along_x)), probability in zip(part, probabilities, strict=True):
            blended[:, y : y + tile, x : x + tile] += probability * along_y[:, None] * along_x
        bar.update(len(part))
    return blended


def segment_tomogram(
    network: nn.Module,
    path_in: str | Path,
    path_out: str | Path,
    *,
    tile: int = 32,
    overlap: int = 16,
    progress: bool = False,
) -> Path:
    """Segment a tomogram of any size by overlapping tiles, in the memory of a few layers of them.

    A layer holds the tiles of one height z. Its probabilities, weighted by :func:`blending`, are added to those of the layers
    above; sections that no later layer reaches are cut at 0.5 and written to ``NAME.part`` beside ``path_out``. A call that
    was interrupted, in whatever way, goes on from there when it is made again, and the mask gets its name when it is whole.
    A mask that the same call has made before is left as it is.

    The network sees ``tile`` voxels a side. A particle larger than that is labelled piece by piece: where a tile lies inside
    it, there is texture but no outline, and the receptive field of the network's deepest tap, wider than a tile of 32, meets
    only padding. Bin the tomogram until the particle fits into a tile, or train on larger samples and use larger tiles.

    Parameters
    ----------
    network : Module
        Logits ``(B, 2, tile, tile, tile)`` of ``(B, 1, tile, tile, tile)``, such as a trained
        :class:`voxuda.networks.voxresnet.VoxResNet`.
    path_in : path
        MRC file ``(D, H, W)`` of any sides and unit, protein bright; sides shorter than a tile are mirrored at their far face.
    path_out : path
        Where the mask ``(D, H, W)`` is written: int8, 1 for protein, voxel size, origin and first indices as in ``path_in``.
    tile : int
        Side of a tile in voxels, a multiple of 8; best that of the training samples.
    overlap : int
        Voxels that neighbouring tiles share.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        ``path_out``.

    Raises
    ------
    InputError
        The tomogram cannot be used (see :func:`survey`), the tile or overlap does not fit, another file stands at
        ``path_out``, an unfinished mask there was begun with something else, or the disk is full.
    """
    check_tiling(tile, overlap)
    volume, typical = survey(path_in, tile)
    made = made_by(network, path_in, tile, overlap)
    if is_made(path_out, made):
        return Path(path_out)
    partial = Partial(path_out, volume, made)
    depth, height, width = volume.data.shape
    starts = positions(depth, tile, overlap)
    layers = list(zip(starts, [*starts[1:], depth], blending(depth, tile, overlap), strict=True))
    each = len(positions(height, tile, overlap)) * len(positions(width, tile, overlap))
    with tqdm(
        total=each * len(layers), initial=each * partial.done, desc=Path(path_in).name, unit="tile", disable=not progress
    ) as bar:
        for start, end, along_z in layers[partial.done :]:
            slab = mirrored(read_slab(path_in, start, start + tile), tile)
            sums = segment_layer(network, slab, typical, tile, overlap, bar) * along_z[:, None, None]
            sums[: len(partial.sums)] += partial.sums
            partial.append(start, sums[: end - start, :height, :width] > 0.5, sums[end - start :])
    return partial.finish()
