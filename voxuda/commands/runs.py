"""`voxuda train`, `evaluate` and `reproduce`, for single runs and whole tables."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import tyro

from voxuda.errors import InputError
from voxuda.experiments.tables import TABLES, Sweep
from voxuda.training.config import Config


@dataclasses.dataclass
class Train:
    """Train one method; Ctrl-C and `--resume` lose at most an epoch.

    Without --source and --target the domains are simulated at the size of --scale.

    A first test, in seconds: voxuda train --method vox-uda --scale smoke --out runs/first

    Our balanced variant, in minutes: voxuda train --method vox-uda --vox-uda.pseudo balanced --vox-uda.adversary 0 --scale
    laptop --out runs/balanced

    Your own folders: voxuda train --method dann --source source --target target --epochs 20 --out runs/dann

    Four GPUs of one machine: torchrun --standalone --nproc-per-node 4 -m voxuda train --device cuda --scale paper --out
    runs/paper

    Two machines, on each: torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint FIRST:29500 --rdzv-id
    paper -m voxuda train ..., where FIRST is the name of one of them. Under Slurm put srun --nodes 2 --ntasks-per-node 1 before
    the same line, or use srun alone with one task per GPU. All processes share each batch of --batch-size samples; the result
    is close to that of a single process, but not equal to it. All machines must have access to --out and all other folders.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    out: Path  #: Folder of the run: config.json, log.jsonl, weights.safetensors, checkpoint/.
    #: Continue from the last checkpoint in --out; without other options, use those of that run, which must exist.
    resume: bool = False

    def run(self) -> None:
        """Train."""
        from voxuda.training import loop
        from voxuda.training.run_folder import read_config

        config = self.config
        rank = int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
        try:
            if self.resume and config == Config():
                if not (self.out / "config.json").exists():
                    raise InputError(f"{self.out}: holds no run to resume; give the options of the run, or leave out --resume.")
                config = read_config(self.out)
                if rank == 0:
                    print(f"resuming {config.method} at scale {config.scale}, with the options of {self.out}")
            loop.train(config, self.out, resume=self.resume)
        except InputError:
            if rank > 0:
                time.sleep(10)  # process 0 most likely reports the same error, and its exit ends all
            raise
        if rank == 0:
            print(f"run finished in {self.out}; next: {following(config, self.out)}")


def following(config: Config, out: Path) -> str:
    """Return the next command after training, which scores the run or, if the target has no masks, uses it."""
    from voxuda.data.listing import list_entries

    with suppress(InputError):  # the target may have been removed since
        if config.target and list_entries(config.target)[0].mask is None:
            return f"voxuda segment FILES --model {shlex.quote(str(out))} --out masks"
    return f"voxuda evaluate {shlex.quote(str(out))}"


@dataclasses.dataclass
class Evaluate:
    """Score a run on its held-out target samples (RUN/scores.json) or on a labelled folder (RUN/scores-FOLDER.json).

    Example: voxuda evaluate runs/first

    The intervals are of the mean over samples, by bootstrap; they do not know how runs with other seeds scatter.
    """

    #: Folder made by `voxuda train`.
    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    #: Labelled folder or star file; by default the run's own test samples.
    target: Path | None = None

    def run(self) -> None:
        """Evaluate with each kind of batch norm statistics."""
        from voxuda.training.evaluation import evaluate_run

        report = evaluate_run(self.run_folder, self.target)
        print(f"{report.method} on {report.scores.overall.n} samples, batch norm statistics: {report.batch_norm}; in percent")
        print(f"{'':>10}{'n':>6}{'IoU':>8}{'95 %':>16}{'Dice':>8}{'95 %':>16}")
        for name, row in [("overall", report.scores.overall), *report.scores.classes.items()]:
            cells = [
                f"{100 * mean:8.1f}{f'{100 * low:.1f} - {100 * high:.1f}':>16}"
                for mean, (low, high) in ((row.iou, row.iou_interval), (row.dice, row.dice_interval))
            ]
            print(f"{name:>10}{row.n:>6}{''.join(cells)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Sweep):
    """Run every row of a table of the book with several seeds; finished runs are kept, interrupted ones resume.

    A first test, in seconds per run: voxuda reproduce table1 --out runs/smoke

    As in the book: voxuda reproduce table1 --scale laptop --seeds 3 --jobs 2 --out runs/laptop

    Then: voxuda results show table1 --runs runs/laptop

    Only the rows without a network, in minutes: voxuda reproduce references --scale laptop --out runs/laptop
    """

    #: The paper's: table1 (all methods), table2 (another source), table3 (without NGM, without pseudo-labels), table4 (its
    #: settings varied), figure6 (features before and after), figure7 (kinds of noise). The book's: today (other methods),
    #: modules (which part closes how much of the gap), ours (self-training beside the methods it must beat),
    #: normalisation (batch norm, group norm and batch renormalisation), sensitivity (choices that the paper leaves open),
    #: real (the main methods on the folder --target), references (blur and threshold, Otsu's threshold, a ball in the middle,
    #: another sample's mask; every other table has these rows too), ladder (what each difference between the domains costs a
    #: source-only network). all makes each of these runs once, except real and ladder; select rows with --only.
    table: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TABLE")]
    out: Path  #: Folder of the runs and of TABLE-SCALE.json.
    jobs: int = 1  #: Number of runs in parallel.

    def run(self) -> None:
        """Run and print the table."""
        from voxuda.experiments import ladder, report, sweep

        if self.table == "ladder":
            others = ("first_seed", "only", "target", "recipe", "epochs", "device", "precision")
            given = [f"--{name.replace('_', '-')}" for name in others if getattr(self, name) != getattr(Sweep, name)]
            if given:
                raise InputError(
                    "the ladder has its own rows and samples; give it only --out, --scale, --seeds and --jobs,"
                    f" without {', '.join(given)}."
                )
            print(ladder.markdown(ladder.climb(self.out, scale=self.scale, seeds=self.seeds, jobs=self.jobs)))
        elif self.table in (*TABLES, "all"):
            print(report.markdown(sweep.reproduce(self, self.out, jobs=self.jobs)))
        else:
            raise InputError(f"{self.table}: no such table; choose from {', '.join(TABLES)}, all and ladder.")
