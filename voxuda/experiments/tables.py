"""The tables of the paper and of the book, as lists of rows and the runs that each row shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from voxuda.errors import InputError
from voxuda.methods.options import VoxUDAOptions
from voxuda.networks.choices import Normalisation
from voxuda.training.config import SCALES, BatchNorm, Config, Recipe, Scale, SourceSet


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    name: str  #: Key, and folder of its runs unless ``runs`` says otherwise.
    label: str  #: What the page shows.
    method: str = "vox-uda"  #: Name of the method, or of one of :mod:`voxuda.experiments.references`.
    #: Fields of :class:`~voxuda.methods.options.VoxUDAOptions` that differ from the paper's.
    options: dict = field(default_factory=dict)
    source_set: SourceSet = "table1"  #: Molecules of the source, as in Table I or Table II.
    #: Normalisation of the network. The rule without target labels chooses group norm for most methods that have runs with
    #: both kinds in the table ``normalisation``, so the others have it too; rows with another one set it.
    normalisation: Normalisation = "group"
    statistics: BatchNorm = "target"  #: Batch norm statistics of the score that is shown.
    runs: str | None = None  #: Name of the row whose runs this one shows in another way.

    def config(self, scale: Scale, seed: int, **changes: Any) -> Config:
        """Return the configuration of this row's run of one seed.

        ``changes`` are fields of :class:`voxuda.training.config.Config` such as ``target`` and ``epochs``.
        """
        blind = self.method in ("zero-shot", "domain-randomisation")  # they have no target to measure
        statistics_of: BatchNorm = "running" if blind else "target"
        return Config(
            self.method, scale, source_set=self.source_set, batch_norm=statistics_of, normalisation=self.normalisation,
            seed=seed, vox_uda=VoxUDAOptions(**self.options), **changes,
        )  # fmt: skip

    def folder(self, out: Path, seed: int) -> Path:
        """Return the folder of this row's run of one seed."""
        return out / (self.runs or self.name) / f"seed-{seed}"


@dataclass(frozen=True)
class Sweep:
    """Runs of a table, which have all but the row and the seed in common."""

    table: str  #: Name of the table.
    #: Sizes of the runs; smoke takes seconds per run, laptop minutes, desk hours on two cores, paper has the paper's sizes.
    scale: Scale = "smoke"
    only: tuple[str, ...] = ()  #: Only these rows; an unknown name prints the list of all.
    seeds: int = 1  #: Runs of each row.
    first_seed: int = 0  #: Seed of the first run of each row, for sweeps over several machines.
    #: Folder with the target samples, which each seed splits differently; the table real needs one.
    target: str | None = None
    #: How the target is simulated, by default by tilt series, but at scale smoke by convolution, which takes a second.
    recipe: Recipe | None = None
    epochs: int | None = None  #: Number of epochs, instead of the scale's.
    device: Literal["cpu", "cuda", "auto"] = "cpu"  #: Device for training.
    precision: Literal["32-true", "bf16-mixed"] = "32-true"  #: Precision of training.

    def sizes(self) -> dict:
        """Return the scale's sizes with this sweep's epochs."""
        return {**SCALES[self.scale], "epochs": self.epochs or SCALES[self.scale]["epochs"]}

    def rows(self) -> list[Row]:
        """Return the chosen rows; the table all has one row per folder of runs."""
        rows = select(self.table, self.only)
        if self.table == "all":
            first: dict[Path, Row] = {}
            for row in rows:
                first.setdefault(row.folder(Path(), 0), row)
            rows = [*first.values()]
        return rows

    def config(self, row: Row, seed: int) -> Config:
        """Return the configuration of a row's run of one seed."""
        recipe = self.recipe or ("convolution" if self.scale == "smoke" else "tilt-series")
        shared = dict(recipe=recipe, target=self.target, epochs=self.epochs, device=self.device, precision=self.precision)
        return row.config(self.scale, seed, **shared)

    def check(self) -> None:
        """Refuse an unknown table or row, fewer than one seed, and a target that is missing or conflicts with a recipe."""
        select(self.table, self.only)
        if self.seeds < 1:
            raise InputError(f"seeds is {self.seeds}; it must be at least 1.")
        if self.target is not None and self.recipe is not None:
            raise InputError("--target is a folder, and --recipe says how to simulate one; give one of them.")
        if self.table == "real" and self.target is None:
            made = "a folder of real subtomograms such as `voxuda data ribosomes` makes"
            raise InputError(f"the table real needs --target, {made}.")


_ALONE = dict(noise="none", adversary=0.0)
_PSEUDO = dict(pseudo="balanced")
_BALANCED = dict(_PSEUDO, adversary=0.0)

_WITHOUT = Row("source-only", "without adaptation", "source-only", statistics="running")
_SUPERVISED = Row("supervised", "fully supervised", "supervised")
_DANN = Row("dann", "DANN", "dann")
_VOX_UDA = Row("vox-uda", "Vox-UDA (IBF)")
_VOX_UDA_BF = Row("vox-uda-bf", "Vox-UDA (BF)", options=dict(denoiser="bf"))
_SELF_TRAINING = Row("self-training", "self-training", "self-training", normalisation="batch")
_OF_NINE = dataclasses.replace(_SELF_TRAINING, name="self-training-nine", label="self-training, 9 molecules", source_set="nine")
_BALANCED_ALONE = Row("balanced", "Vox-UDA, balanced, no adversary", options=_BALANCED)

REFERENCES = (
    Row("blur-threshold", "blur and threshold", "blur-threshold"),
    Row("otsu", "blur and Otsu's threshold", "otsu"),
    Row("ball", "a ball in the middle", "ball"),
    Row("other-mask", "the mask of another sample", "other-mask"),
)
"""Rows that need no network; :func:`select` puts them at the end of every table."""

_TABLE1 = (
    _WITHOUT,
    _SUPERVISED,
    _DANN,
    Row("pdam", "PDAM", "pdam"),
    Row("asc", "ASC", "asc", normalisation="batch", statistics="running"),
    Row("asc-slices", "ASC, slices", "asc-slices", normalisation="batch", statistics="running"),
    Row("le-uda", "LE-UDA", "le-uda"),
    Row("le-uda-slices", "LE-UDA, slices", "le-uda-slices"),
    Row("vox-uda-ngm", "Vox-UDA (NGM)", options=dict(denoiser="ngm")),
    _VOX_UDA_BF,
    _VOX_UDA,
)


def _of_table2(row: Row) -> Row:
    """The same row on the source of Table II; full supervision and the masks of other samples use no source."""
    without = row.method in ("supervised", "other-mask")
    return row if without else dataclasses.replace(row, name=f"table2-{row.name}", source_set="table2")


def _of_folder(row: Row) -> Row:
    """The same on a folder of real subtomograms."""
    return dataclasses.replace(row, name=f"real-{row.name}")


def _sweep(option: str, *values: Any) -> list[Row]:
    """One row for each value of an option; for the paper's choice the runs of the row vox-uda."""
    rows = []
    for value in values:
        shown = "-".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"
        chosen = getattr(VoxUDAOptions(), option) == value
        changed = dict(runs="vox-uda") if chosen else dict(options={option: value})
        rows.append(Row(f"{option}-{shown}", f"{option} {shown}", **changed))  # type: ignore[arg-type]
    return rows


_SOURCE_ONLY = dataclasses.replace(_WITHOUT, statistics="target")
_NGM = Row("ngm", "NGM alone", options=dict(pseudo="none", adversary=0.0))
_PL_IBF = Row("pl-ibf", "pseudo-labels, IBF", options=_ALONE)
_ZERO_SHOT = Row("zero-shot", "zero-shot (noise of random level)", "zero-shot", statistics="running")


def _normalised(row: Row, *kinds: Normalisation) -> list[Row]:
    """A row with each normalisation; with its own it shows the row's own runs."""
    labels: dict[Normalisation, str] = {"batch": "batch norm", "group": "group norm", "renorm": "batch renormalisation"}
    return [
        dataclasses.replace(
            row,
            name=f"{row.name}-{kind}",
            label=f"{row.label}, {labels[kind]}",
            normalisation=kind,
            runs=row.name if kind == row.normalisation else None,
        )
        for kind in kinds
    ]


_TODAY = (
    _WITHOUT,
    Row("adabn", "AdaBN", "source-only", normalisation="batch", runs="source-only-batch"),
    Row("domain-randomisation", "domain randomisation", "domain-randomisation", statistics="running"),
    _ZERO_SHOT,
    Row("fda", "FDA", "fda"),
    Row("minent", "MinEnt", "minent"),
    Row("advent", "ADVENT", "advent"),
    Row("tent", "TENT", "tent", normalisation="batch"),
    Row("mean-teacher", "mean teacher", "mean-teacher"),
    Row("mic", "MIC", "mic"),
    Row("cbst", "CBST", "cbst"),
    _VOX_UDA,
    _BALANCED_ALONE,
    _SUPERVISED,
)

_OTHERS = tuple(
    row for row in (*_TABLE1, *_TODAY) if row.method not in ("source-only", "dann", "vox-uda", "supervised", "tent")
)
"""Methods beside the main ones that work with any normalisation, as TENT does not."""

_MAIN = (_SOURCE_ONLY, _ZERO_SHOT, _DANN, _NGM, _PL_IBF, _VOX_UDA, _VOX_UDA_BF, _BALANCED_ALONE, _SELF_TRAINING, _SUPERVISED)

TABLES: dict[str, tuple[Row, ...]] = {
    "table1": _TABLE1,
    "table2": tuple(_of_table2(row) for row in _TABLE1),
    "table3": (
        Row("dann", "baseline", "dann"),
        Row("without-ngm", "without NGM", options=dict(noise="none")),
        Row("without-pl", "without pseudo-labels", options=dict(pseudo="none")),
        _VOX_UDA,
    ),
    "table4": (
        *_sweep("n_sampled", 5, 10, 15, 20),
        *_sweep("rho", 0.084, 0.178, 0.244, 0.422),
        *_sweep("lambdas", (0.1, 0.1, 0.4, 0.4), (0.2, 0.2, 0.3, 0.3), (0.3, 0.3, 0.2, 0.2), (0.4, 0.4, 0.1, 0.1)),
        *_sweep("sigma_d", 100.0, 120.0, 140.0, 160.0),
        *_sweep("sigma_r", 0.8, 1.0, 1.2, 1.4),
    ),
    "figure6": (_WITHOUT, _VOX_UDA),
    "figure7": (
        Row("noise-gaussian", "Gaussian noise", runs="vox-uda"),
        Row("noise-poisson", "Poisson noise", options=dict(noise="poisson")),
        Row("noise-speckle", "speckle noise", options=dict(noise="speckle")),
    ),
    "today": _TODAY,
    "modules": (
        _SOURCE_ONLY,
        _DANN,
        _NGM,
        Row("pl-none", "pseudo-labels, not denoised", options=dict(_ALONE, denoiser="none")),
        _PL_IBF,
        Row("pl-balanced-none", "balanced pseudo-labels, not denoised", options=dict(_ALONE, **_PSEUDO, denoiser="none")),
        Row("pl-balanced", "balanced pseudo-labels, IBF", options=dict(_ALONE, **_PSEUDO)),
        _VOX_UDA,
        Row("vox-uda-no-adversary", "Vox-UDA without adversary", options=dict(adversary=0.0)),
        Row("vox-uda-balanced", "Vox-UDA, balanced", options=_PSEUDO),
        _BALANCED_ALONE,
        _SUPERVISED,
    ),
    "ours": (
        _SOURCE_ONLY,
        _VOX_UDA,
        _VOX_UDA_BF,
        _BALANCED_ALONE,
        _SELF_TRAINING,
        _OF_NINE,
        _SUPERVISED,
    ),
    "normalisation": tuple(
        part for row in (_SOURCE_ONLY, _DANN, _VOX_UDA, _SUPERVISED) for part in _normalised(row, "batch", "group", "renorm")
    )
    + tuple(part for row in _OTHERS for part in _normalised(row, "batch", "group")),
    "sensitivity": (
        _VOX_UDA,
        Row("gradient-magnitude", "gradient of the Sobel magnitude", options=dict(gradient="sobel_magnitude")),
        Row("window-5", "window of 5³", options=dict(window=5)),
        Row("bf-window-5", "window of 5³, plain filter", options=dict(denoiser="bf", window=5)),
        Row("average-volumes", "variance of the mean of the samples", options=dict(average="volumes")),
        Row("reading-kept", "filter rate is what is kept", options=dict(reading="cube_kept")),
        Row("noised-not-segmented", "noised source not segmented", options=dict(segment_noised=False)),
        *(Row(f"eta-{value}", f"η {value}", options=dict(eta=value)) for value in (0.7, 0.95)),
        *(Row(f"ema-{value}", f"EMA decay {value}", options=dict(ema=value)) for value in (0.9, 0.999)),
        *(Row(f"warm-up-{value}", f"warm-up {value}", options=dict(warm_up=value)) for value in (0.0, 0.6)),
    ),
    "real": tuple(map(_of_folder, _MAIN)),
    "references": REFERENCES,
}
"""Declared tables.

``table1`` to ``table4``, ``figure6``, ``figure7``: the paper's. ``today``: other methods beside them.
``modules``: which part of Vox-UDA closes how much of the gap.
``ours``: self-training beside the methods it must beat.
``normalisation``: batch norm, group norm and batch renormalisation in the main methods; each run is scored with every kind of
batch norm statistics.
``sensitivity``: what the paper leaves open in Vox-UDA, one choice at a time.
``real``: the main methods on a folder of real subtomograms.
``references``: rows that need no network, which :func:`select` adds to all other tables.
"""

_TEN_SEEDS = {
    "source-only", "supervised", "dann", "vox-uda-ngm", "vox-uda-bf", "vox-uda", "balanced", "self-training",
    *(row.name for row in REFERENCES),
}  # fmt: skip


def planned_seeds(name: str) -> int:
    """Return how many seeds a row gets before its verdict is final, whatever the first ones say.

    Ten for the main rows of Tables I and II, our own and the references; three for rows of Table IV; five for the others.
    """
    if name.removeprefix("table2-") in _TEN_SEEDS:
        return 10
    return 3 if name in {row.name for row in TABLES["table4"]} else 5


_OF_ONE_TARGET = tuple(name for name in TABLES if name != "real")
"""The tables whose runs may stand in one folder."""

_ON_ITS_SAMPLES = {"table2": _of_table2, "real": _of_folder}
"""Functions that convert a row to a table whose samples are not those of Table I."""


def select(table: str, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a table and the references, or those named; "all" has the rows of all tables on simulated targets.

    Raises
    ------
    InputError
        There is no such table or row.
    """
    if table not in (*TABLES, "all"):
        raise InputError(f"{table}: no such table; choose from {', '.join(TABLES)} and all.")
    if table == "all":
        each = {row.name: row for name in _OF_ONE_TARGET for row in select(name)}
        rows = tuple(each.values())
    else:
        references = () if table == "references" else map(_ON_ITS_SAMPLES.get(table, lambda row: row), REFERENCES)
        rows = (*TABLES[table], *references)
    unknown = set(only) - {row.name for row in rows}
    if unknown:
        raise InputError(f"{', '.join(sorted(unknown))}: no such row; choose from {', '.join(row.name for row in rows)}.")
    return [row for row in rows if not only or row.name in only]
