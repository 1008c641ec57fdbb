"""`voxuda results` prints tables and verdicts, and keeps the small files of runs."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from voxuda.errors import InputError
from voxuda.training.config import Recipe, Scale


def _runs(chosen: Path | None, scale: str, recipe: Recipe | None) -> tuple[Path, Path]:
    """Return the folder of runs (chosen, or results/SCALE here, in a folder above, or of the project) and the project's."""
    from voxuda.training.run_folder import RESULTS

    name = f"{scale}-{recipe}" if recipe else scale
    here, stored = Path("results") / name, RESULTS.absolute() / name
    looked = [chosen] if chosen else [here, *(above / here for above in Path.cwd().parents), stored]
    return next(filter(Path.is_dir, looked), looked[0]), stored


@dataclasses.dataclass
class Show:
    """Print a table beside the paper's, with intervals over seeds and the number of seeds that differences need.

    Example: voxuda results show table1

    Your own runs: voxuda results show table1 --runs runs/laptop
    """

    #: table1 to table4, figure6, figure7, today, modules, ours, normalisation, sensitivity, real or references.
    table: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TABLE")]
    #: Folder of runs ROW/seed-K; by default results/SCALE or results/SCALE-RECIPE in this folder, one above it or the project.
    runs: Path | None = None
    scale: Scale = "laptop"  #: Scale of the runs.
    recipe: Recipe | None = None  #: Target of the runs, if they were made with --recipe.
    target: Path | None = None  #: Folder of target samples that the runs were made with, for the table real.
    epochs: int | None = None  #: Epochs of the runs, if not the scale's.
    #: Row to subtract from the others; by default Vox-UDA (IBF) if the table has it, else the first row.
    reference: str | None = None
    markdown: bool = False  #: Print Markdown instead of aligned text.

    def run(self) -> None:
        """Collect and print."""
        from voxuda.experiments import report, sweep, tables

        target = None if self.target is None else str(self.target.absolute())
        folder, stored = _runs(self.runs, self.scale, self.recipe)
        asked = tables.Sweep(self.table, self.scale, target=target, recipe=self.recipe, epochs=self.epochs)
        kept = stored.with_name(f"real-{self.scale}.json")
        if self.table == "real" and not (self.runs or self.target) and kept.is_file():
            result = json.loads(kept.read_text())  # its runs name the folder of their target, which is not stored here
        else:
            result = sweep.collect(asked, folder)
        names = [row["name"] for row in result["rows"]]
        if not names:
            where = "" if folder.is_dir() or self.runs else f" looked in each folder above, and in {stored};"
            raise InputError(
                f"{folder}: holds no finished run of {self.table};{where}"
                f" make some with `voxuda reproduce {self.table} --scale {self.scale} --out {shlex.quote(str(folder))}`."
            )
        usual = [row["name"] for row in result["rows"] if row["method"] == "vox-uda" and not row["options"]]
        reference = self.reference or (usual or names)[0]
        if reference not in names:
            raise InputError(f"{reference}: no such row here; choose from {', '.join(names)}.")
        table = report.beside_the_paper(result, reference)
        sizes = result["sizes"]
        print(
            f"{self.table} at scale {self.scale}: width {sizes['width']}, {sizes['epochs']} epochs; IoU and Dice in percent. "
            "95 % intervals by moderated t over seeds: the rows' variances share a prior, and each interval is for itself."
        )
        print(table if self.markdown else report.plain(table))
        declared = asked.rows()
        if missing := [row.label for row in declared if row.name not in names]:
            print(f"no runs yet: {'; '.join(missing)}.")
        for runs in dict.fromkeys(row.runs for row in declared if row.runs and row.name in names):
            same = [row.label for row in declared if row.runs == runs and row.name in names]
            if len(same) > 1:
                print(f"the same runs, in {runs}: {'; '.join(same)}.")
        print(report.power_note(result, reference))
        if self.table == "normalisation":
            both = report.normalisations(result)
            print("\nEach kind of batch norm statistics, and the one chosen by the rule, which uses no target labels:")
            print(both if self.markdown else report.plain(both))


@dataclasses.dataclass
class Verdicts:
    """Judge each claim, the paper's and ours, as reproduced [Re], not [¬Re] or [open], by rules fixed before the runs.

    Example: voxuda results verdicts

    Your own runs: voxuda results verdicts --runs runs/laptop
    """

    #: Folder of runs ROW/seed-K; by default results/SCALE or results/SCALE-RECIPE in this folder, one above it or the project.
    runs: Path | None = None
    scale: Scale = "laptop"  #: Scale of the runs.
    recipe: Recipe | None = None  #: Target of the runs, if they were made with --recipe.
    markdown: bool = False  #: Print Markdown instead of aligned text.

    def run(self) -> None:
        """Judge and print."""
        from voxuda.experiments import report, tables, verdicts

        folder, _ = _runs(self.runs, self.scale, self.recipe)
        judged = verdicts.judge(tables.Sweep("table1", self.scale, recipe=self.recipe), folder)
        if not judged.found:
            raise InputError(f"{folder}: holds no two rows of a claim; name a folder of `voxuda reproduce` with --runs.")
        table = verdicts.markdown(judged)
        print(table if self.markdown else report.plain(table))
        print(f"\n{verdicts.note(judged)}\nTraining of all runs in {folder}: {report.cpu_hours(folder):.1f} CPU hours.")


@dataclasses.dataclass
class Keep:
    """Copy the summaries and logs of finished runs, a few kilobytes each, into a folder that can be committed.

    Example: voxuda results keep runs/laptop --into results/laptop

    With the network of the first seed of some rows, in half precision, for `voxuda segment`: voxuda results keep
    runs/laptop --into results/laptop --weights dann vox-uda
    """

    #: Folder of `voxuda reproduce`.
    runs: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUNS")]
    into: Path  #: Folder that gets ROW/seed-K/summary.json, log.jsonl and oracle.jsonl.
    weights: tuple[str, ...] = ()  #: Rows whose first seed's weights are kept too, as bfloat16.

    def run(self) -> None:
        """Copy what is new."""
        from voxuda.data.files import locked, write_atomically
        from voxuda.training.run_folder import halve_weights

        found = sorted(self.runs.glob("*/seed-*/summary.json"))
        if not found:
            out = shlex.quote(str(self.runs))
            raise InputError(f"{self.runs}: holds no finished run; make some with `voxuda reproduce TABLE --out {out}`.")
        with locked(self.into):
            copied = 0
            for path in found:
                kept = self.into / path.relative_to(self.runs)
                if kept.exists() and kept.read_bytes() != path.read_bytes():
                    raise InputError(f"{kept}: another run is kept there; delete it first, or choose another --into.")
                kept.parent.mkdir(parents=True, exist_ok=True)
                for log in (path.with_name(name) for name in ("log.jsonl", "oracle.jsonl")):
                    if log.exists():
                        write_atomically(partial(shutil.copyfile, log), kept.with_name(log.name))
                if not kept.exists():
                    write_atomically(partial(shutil.copyfile, path), kept)
                    copied += 1
            print(f"{copied} summaries copied into {self.into}, {len(found) - copied} were there")
            for row in self.weights:
                first = min((p.parent for p in found if p.parts[-3] == row), default=None, key=lambda p: int(p.name[5:]))
                if first is None:
                    raise InputError(f"{self.runs}: has no finished run of {row}.")
                halve_weights(first, self.into / row / first.name)
                print(f"weights of {row} kept in {self.into / row / first.name}")


@dataclasses.dataclass
class Rows:
    """List the rows of a table, with the name, the folder of the runs and the label of each.

    Example: voxuda results rows table1
    """

    #: Any table that `voxuda reproduce` knows.
    table: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TABLE")]

    def run(self) -> None:
        """Print one line per row."""
        from voxuda.experiments import tables

        for row in tables.Sweep(self.table).rows():
            print(f"{row.name:24} {row.folder(Path(), 0).parent.name:24} {row.label}")


Results = Annotated[
    Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Verdicts, tyro.conf.subcommand("verdicts")]
    | Annotated[Keep, tyro.conf.subcommand("keep")]
    | Annotated[Rows, tyro.conf.subcommand("rows")],
    tyro.conf.subcommand(
        "results",
        description="Print tables of finished runs (`show`) or `verdicts`, `keep` the small files of runs, list the `rows` of a"
        " table.",
    ),
]
