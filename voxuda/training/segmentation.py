"""Segment files at the models' voxel size, and write masks and the files beside them."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from voxuda.data.files import check_folder, locked
from voxuda.data.mrc import COMPRESSED, Volume
from voxuda.data.sections import HEADER, SectionWriter, read_sections
from voxuda.data.star import write_star
from voxuda.data.subtomograms import VOXEL_SIZES
from voxuda.errors import InputError
from voxuda.training import tomograms
from voxuda.training.components import Components, Table
from voxuda.training.config import SegmentOptions
from voxuda.training.devices import choose_device
from voxuda.training.peaks import find_peaks
from voxuda.training.picture import draw
from voxuda.training.run_folder import find_model, load_network
from voxuda.training.segment_inputs import LABEL, find_files, is_whole, name_masks, plain
from voxuda.training.tomograms import Probabilities, Survey, Tomogram

SECTIONS = 16
"""Sections in memory at a time, fewer if they are large."""

VOXELS = 2**23
"""Maximum number of voxels in memory at a time after the network, unless a single section has more."""


@dataclass(frozen=True)
class Segmented:
    """Result of segmenting one file."""

    mask: Path  #: Path of its mask.
    share: float  #: Share of foreground voxels.
    components: int | None  #: Number of components in the mask; None if the mask existed already.
    particles: int | None  #: Number of particles in the star file; None if there is none, or the mask existed already.
    voxel_size: float  #: Voxel size in angstrom; 0 if unknown.
    seconds: float  #: Time taken.
    memory: float  #: Peak memory of the process so far, in GB.

    def __str__(self) -> str:
        size = f"{self.voxel_size:.2f} Å" if self.voxel_size else "voxel size unknown"
        if self.components is None:
            return f"{self.mask}: {self.share:.1%} protein, {size}, was there already"
        components = f"{self.components} component{'s' * (self.components != 1)}"
        components += "" if self.particles is None else f", {self.particles} particle{'s' * (self.particles != 1)}"
        return f"{self.mask}: {self.share:.1%} protein in {components}, {size}, {self.seconds:.0f} s, {self.memory:.1f} GB"


def segment_files(
    files: Sequence[str | Path], out: str | Path, options: SegmentOptions | None = None, *, progress: bool = True
) -> list[Segmented]:
    """Segment subtomograms or tomograms; see ``voxuda segment --help``.

    Parameters
    ----------
    files : sequence of path
        MRC volumes ``(D, H, W)`` or stacks ``(N, D, H, W)``, folders of them, or patterns such as ``"*.mrc"``.
    out : path
        Folder for the masks, ``NAME_mask.mrc`` for ``NAME.mrc``: 1 for protein, 0 for the rest.
    options : SegmentOptions, optional
        Options of the segmentation and of the files it writes.
    progress : bool
        Show progress bars, and a line for each file when it is done.

    Returns
    -------
    list of Segmented
        One per file, in the order of the files.

    Raises
    ------
    InputError
        A file, the model, an option or the folder cannot be used; all files are checked before any mask is written.
    """
    options = options or SegmentOptions()
    out = Path(out)
    network = load_network(find_model(options.model)).to(choose_device(options.device))
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a third faster on a CPU
    volumes = name_masks(find_files(files))
    with locked(check_folder(out)):
        jobs, done = [], []
        # All files are read once before hours are spent on the first.
        quiet = not progress or len(volumes) < 2
        for name, volume in tqdm(volumes.items(), "reading", unit="file", leave=False, disable=quiet):
            jobs.append(Job(volume, out / name, options, network))
            jobs[-1].check()
        for job in jobs:
            done.append(job.run(progress))
            if progress:
                print(done[-1], flush=True)
        return done


class Job:
    """Segmentation of one file, from reading its header to writing its mask and the files beside it.

    Unfinished work is kept in a hidden folder ``.NAME_mask.mrc.work`` beside the mask, which is moved into place last.

    Parameters
    ----------
    volume : Volume
        The file, opened.
    mask : Path
        Path of its mask.
    options : SegmentOptions
        Options of the segmentation.
    network : Module
        Network that maps ``(B, 1, D, H, W)`` to logits ``(B, 2, D, H, W)``.
    """

    def __init__(self, volume: Volume, mask: Path, options: SegmentOptions, network: nn.Module) -> None:
        self.volume, self.mask, self.options, self.network = volume, mask, options, network
        self.work = mask.with_name(f".{mask.name}.work")
        self.voxel_size = options.true_voxel_size or volume.voxel_size
        self.packed = volume.path.suffix.lower() in COMPRESSED
        self.is_stack = volume.data.ndim == 4
        self.tomogram = self._tiled()
        self.made = self._made()
        self.looked: Survey | None = None

    def _tiled(self) -> Tomogram:
        volume, options = self.volume, self.options
        *sections, height, width = volume.data.shape
        sides = int(np.prod(sections)), height, width
        path = self.work / plain(volume.path).name if self.packed else volume.path
        if self.is_stack:
            return Tomogram(volume, path, sides, volume.data.shape[1:], (0, 0, 0), options.invert)
        factor = self._factor()
        depth, height, width = (max(1, round(side * factor)) for side in sides)
        shape = (depth, height, width)
        if is_whole(shape):
            return Tomogram(volume, path, shape, shape, (0, 0, 0), options.invert)
        return Tomogram(volume, path, shape, (options.tile,) * 3, (options.overlap,) * 3, options.invert)

    def _factor(self) -> float:
        """Return the scale along an axis, in network voxels per file voxel."""
        low, high = VOXEL_SIZES
        if not self._knows_voxel_size():
            return 1.0
        if not 0.5 <= self.voxel_size <= 40:
            raise InputError(f"{self.volume.path}: voxels of {self.voxel_size:g} Å; give their true size as --true-voxel-size.")
        return self.voxel_size / min(max(self.voxel_size, low), high)

    def _knows_voxel_size(self) -> bool:
        """Whether the voxel size is known; programs that do not know it write 0 or exactly 1."""
        return self.voxel_size not in (0.0, 1.0) or self.options.true_voxel_size is not None

    def _made(self) -> dict:
        """Return what the probabilities depend on, as SHA-256 of the file and of the weights, and options.

        So a copied or moved file is recognised as the same volume, and one edited in place is not.
        """
        weights = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            weights.update(name.encode() + tensor.cpu().numpy().tobytes())
        with open(self.volume.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        options = {name: getattr(self.options, name) for name in ("normalise", "batch_norm", "invert")}
        tiling = {"shape": list(self.tomogram.shape), "tile": self.options.tile, "overlap": self.options.overlap}
        flips = {"flips": self.options.flips or self.options.uncertainty}
        return {"volume": digest.hexdigest(), "weights": weights.hexdigest(), **options, **tiling, **flips}

    @property
    def label(self) -> str:
        """Header line by which the same command recognises its mask."""
        wanted = ("threshold", "min_voxels", "probabilities", "uncertainty", "instances", "coordinates", "picture")
        made = {**self.made, "voxel_size": self.voxel_size, **{name: getattr(self.options, name) for name in wanted}}
        if self.options.diameter is not None:
            made["diameter"] = float(self.options.diameter)
        return LABEL + hashlib.sha256(json.dumps(made).encode()).hexdigest()[:32]

    def files(self) -> dict[str, Path]:
        """Return the paths of all output files by kind, the mask last."""
        stem, suffix = self.mask.stem.removesuffix("_mask"), self.mask.suffix
        names = {kind: f"{stem}_{kind}{suffix}" for kind in ("probabilities", "uncertainty", "instances")}
        names |= {"coordinates": f"{stem}_particles.star", "picture": f"{stem}_mask.png"}
        wanted = {kind: self.mask.with_name(name) for kind, name in names.items() if getattr(self.options, kind)}
        return {**wanted, "mask": self.mask}

    def is_made(self) -> bool:
        """Return whether all files are finished; refuses any other file in their place."""
        if self.mask.is_dir():
            raise InputError(f"{self.mask}: is a folder; choose another --out.")
        if not self.mask.exists():
            taken = [] if self.work.exists() else [path for path in self.files().values() if path.exists()]
            if taken:
                raise InputError(f"{taken[0]}: exists without {self.mask.name}; move it elsewhere or choose another --out.")
            return False
        with open(self.mask, "rb") as file:
            if self.label.encode() not in file.read(HEADER):
                raise InputError(f"{self.mask}: exists, made from another volume or with other options; choose another --out.")
        whole = self.mask.stat().st_size == HEADER + np.prod(self.tomogram.sides)  # one byte a voxel
        return whole and all(path.is_file() and path.stat().st_size for path in self.files().values())

    def check(self) -> None:
        """Check the options, read the whole file, and print warnings."""
        if self.options.coordinates and self.is_stack:
            raise InputError(f"{self.volume.path}: is a stack of subtomograms; give a tomogram, or leave out --coordinates.")
        if self.options.coordinates and not self._knows_voxel_size():
            raise InputError(
                f"{self.volume.path}: the header gives no voxel size; coordinates are in Å, so give --true-voxel-size."
            )
        if not self.is_made() and not self.packed:
            self._look()

    def _look(self) -> Survey:
        if self.looked is None:
            self.looked = tomograms.survey(self.tomogram)
            for doubt in self.doubts(self.looked):
                tqdm.write(f"{self.volume.path}: {doubt}", file=sys.stderr)  # above the progress bar
        return self.looked

    def doubts(self, looked: Survey) -> Iterator[str]:
        """Yield warnings to consider before trusting the mask."""
        low, high = VOXEL_SIZES
        models = f"the models were trained on {low:g} to {high:g} Å"
        if not self._knows_voxel_size():
            says = "exactly 1 Å, which often means unknown" if self.voxel_size else "no voxel size"
            yield f"the header gives {says}; {models}, so give the true size as --true-voxel-size if it differs."
        elif self.is_stack and not low <= self.voxel_size <= high:
            yield f"voxels of {self.voxel_size:.2f} Å, but {models}; rescale with `voxuda data convert --voxel-size`."
        elif not self.is_stack and max(self.tomogram.shape) < self.options.tile:
            width = max(self.tomogram.sides) * self.voxel_size
            yield f"the volume is {width:.0f} Å wide, less than a tile; is its voxel size, {self.voxel_size:.2f} Å, right?"
        leaning = looked.skewness
        if len(leaning) >= 4:
            mean, error = leaning.mean(), leaning.std() / len(leaning) ** 0.5
            if mean < min(-3 * error, -0.1):  # weaker skew is as likely due to the contrast transfer of bright protein
                dark = f"{(leaning < 0).sum()} of {len(leaning)} tiles lean dark (skewness {mean:+.2f} ± {error:.2f})"
                remedy = "without --invert" if self.options.invert else "--invert"
                yield f"protein looks dark and must be bright: {dark}; look at the picture, or try {remedy}."

    def run(self, progress: bool) -> Segmented:
        """Segment the file, unless its mask is finished.

        Raises
        ------
        InputError
            The volume cannot be used, the path of the mask or its folder is taken, or the disk is full.
        """
        begun = time.perf_counter()
        if self.is_made():
            shutil.rmtree(self.work, ignore_errors=True)  # left by a process killed at its very end
            share = np.mean([read_sections(self.mask, z, z + 1).mean() for z in range(self.tomogram.sides[0])])
            return Segmented(self.mask, float(share), None, None, self.voxel_size, 0.0, memory())
        try:
            components, found, share = self._segment(progress)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "make room there, then run the same command again" if full else "choose another --out"
            how = f"cannot be written ({error.strerror}); {remedy}"
            raise InputError(f"{error.filename or self.work}: {how}.") from error
        return Segmented(self.mask, share, components, found, self.voxel_size, time.perf_counter() - begun, memory())

    def _segment(self, progress: bool) -> tuple[int, int | None, float]:
        if self.packed:
            self._unpack()
        looked, flips = self._look(), self.made["flips"]
        self.work.mkdir(parents=True, exist_ok=True)
        network = self.network
        if self.options.batch_norm == "volume":
            network = copy.deepcopy(network)
            tomograms.measure_batch_norm(network, self.tomogram, looked, self.options.normalise)
        typical = None if self.is_stack else looked  # each sample of a stack holds a particle
        probabilities = Probabilities(self.work, self.tomogram, 1 + flips, self.made)
        probabilities.compute(network, typical, self.options.normalise, flips=flips, progress=progress)
        return self._write(probabilities)

    def _unpack(self) -> None:
        """Decompress the file into the work folder, since a compressed file cannot be read piece by piece."""
        if self.tomogram.path.exists() and (self.work / "progress").exists():
            return  # without progress, it may come from another file of the same name
        self.work.mkdir(parents=True, exist_ok=True)
        part = self.work / "unpacked"
        with COMPRESSED[self.volume.path.suffix.lower()](self.volume.path) as packed, open(part, "wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
        os.replace(part, self.tomogram.path)

    def _chunks(self, probabilities: Probabilities) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
        """Yield chunks of sections as first section, probabilities ``(n, C, H, W)`` and mask ``(n, H, W)``."""
        few = min(SECTIONS, max(1, VOXELS // int(np.prod(self.tomogram.sides[1:]))))
        for start, values in probabilities.on_file_grid(self.tomogram.tile[0] if self.is_stack else few):
            if self.tomogram.shape != self.tomogram.sides:
                _, blank = self.tomogram.read(start, start + len(values))
                values = values.masked_fill(blank[:, None], 0)
            yield start, values, (values[:, 0] > self.options.threshold).numpy()

    def _label(self, probabilities: Probabilities, components: Components) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
        """Yield the chunks with numbered pieces of components ``(n, H, W)`` in place of the mask, the same on each call."""
        for start, values, mask in self._chunks(probabilities):
            if self.is_stack:
                components.separate()
            yield start, values, components.add(mask, values[:, 0].numpy())

    def _write(self, probabilities: Probabilities) -> tuple[int, int | None, float]:
        """Write all requested files into the work folder, then move them into place, the mask last.

        Returns the numbers of components and of particles, and the share of foreground.
        """
        components = Components()
        for _ in self._label(probabilities, components):
            pass
        table = components.table(self.options.min_voxels)
        files = {kind: self.work / path.name for kind, path in self.files().items()}
        kinds = {"probabilities": "float32", "uncertainty": "float32", "mask": "int8"}
        kinds["instances"] = "int16" if len(table.voxels) < 2**15 else "float32"
        writers = {
            kind: SectionWriter(path, self.volume, self.voxel_size, kinds[kind], self.label)
            for kind, path in files.items()
            if kind in kinds
        }
        counts = [np.zeros(side, int) for side in self.tomogram.sides]
        for start, values, pieces in self._label(probabilities, Components()):
            labels = table.labels[pieces]
            mask = labels > 0
            written = {
                "mask": mask,
                "instances": labels,
                "probabilities": values[:, 0].numpy(),
                "uncertainty": values[:, -1].numpy(),
            }
            for kind, writer in writers.items():
                writer.write(start, written[kind])
            counts[0][start : start + len(mask)] += mask.sum((1, 2))
            counts[1] += mask.sum((0, 2))
            counts[2] += mask.sum((0, 1))
        for writer in writers.values():
            writer.finish()
        found = None
        if self.options.coordinates:
            centres, columns = self._particles(probabilities, table)
            write_star(files["coordinates"], "particles", particles(centres, columns, self.volume, self.voxel_size))
            found = len(centres)
        if self.options.picture:
            depth = self.tomogram.tile[0] if self.is_stack else len(counts[0])
            fullest = depth * int(counts[0].reshape(-1, depth).sum(1).argmax())
            sections = range(fullest, fullest + depth)
            if self.is_stack:  # rows and columns of this volume alone
                inside = read_sections(files["mask"], sections.start, sections.stop) > 0
                counts[1:] = [inside.sum((0, 2)), inside.sum((0, 1))]
            draw(self.tomogram, files["mask"], sections, self.voxel_size, [counts[0][sections], *counts[1:]], files["picture"])
        for path in files.values():
            os.replace(path, self.mask.with_name(path.name))
        shutil.rmtree(self.work)
        return len(table.voxels), found, float(counts[0].sum() / np.prod(self.volume.data.shape, dtype=float))

    def _particles(self, probabilities: Probabilities, table: Table) -> tuple[np.ndarray, dict[str, list[str]]]:
        """Return the centres ``(K, 3)`` of components, or of peaks, in voxels of the file, and what is known of each."""
        if self.options.diameter is None:
            mean = [f"{probability:.4f}" for probability in table.probabilities]
            return table.centres, {"voxudaVoxels": [str(n) for n in table.voxels], "voxudaMeanProbability": mean}
        seen, sides = np.array(self.tomogram.shape), np.array(self.tomogram.sides)
        peaks = find_peaks(
            lambda start, stop: probabilities.read(start, stop)[:, 0].numpy(),
            int(seen[0]),
            self.options.diameter * self._factor() / self.voxel_size,
            self.options.threshold,
        )
        figure_of_merit = [f"{score:.4f}" for score in peaks.scores]
        return (peaks.centres + 0.5) * sides / seen - 0.5, {"rlnAutopickFigureOfMerit": figure_of_merit}


def particles(centres: np.ndarray, columns: dict[str, list[str]], volume: Volume, voxel_size: float) -> dict[str, list[str]]:
    """Convert centres ``(K, 3)`` in voxels to RELION 5 particles, in angstrom from the middle of the tomogram, voxel n / 2.

    Orientations are unknown and written as 0, since readers expect them. RELION keeps columns that it does not know. Row k of
    components is label k of the instances.
    """
    name, count = plain(volume.path).stem, len(centres)
    z, y, x = ((centres - np.array(volume.data.shape) / 2) * voxel_size).T
    return {
        "rlnTomoName": [name] * count,
        "rlnTomoParticleName": [f"{name}/{k}" for k in range(1, count + 1)],
        **{
            f"rlnCenteredCoordinate{axis}Angst": [f"{v:.3f}" for v in values]
            for axis, values in zip("XYZ", (x, y, z), strict=True)
        },
        **{f"rlnAngle{angle}": ["0"] * count for angle in ("Rot", "Tilt", "Psi")},
        **columns,
    }


def memory() -> float:
    """Return the peak memory of this process so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
