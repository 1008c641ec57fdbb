"""Train on file systems that are too small by less and less, make room, go on, and compare with a run that had room."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

from tests.trust.interrupt import equal, in_child, keep, outcome, prepare
from voxuda.errors import InputError
from voxuda.training import loop

INSIDE = "VOXUDA_OWN_MOUNTS"


def mount(folder: Path, kilobytes: int, *, again: bool = False) -> None:
    """A file system in memory of this size, or with ``again`` the same one with another size."""
    options = f"{'remount,' if again else ''}size={kilobytes}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


def trials(base: Path, step: int) -> dict:
    """Disks of ``step`` kilobytes, twice ``step``, and so on, until a run has room.

    Returns
    -------
    dict
        ``full`` (runs that met a full disk), ``checkpoints`` (how many of them had a checkpoint, which was then whole),
        ``enough`` (kilobytes that a run needs), ``sentences`` (what the runs said, without paths), ``different`` (runs that,
        after room was made, did not end as the run that had room from the start).
    """
    torch.set_num_threads(1)  # no threads, see in_child
    config = prepare(base)
    train = dict(config=config, resume=True, progress=False)
    in_child(lambda: loop.train(out=base / "alone", **train))
    alone = outcome(base / "alone")
    disk, said = base / "disk", base / "said"
    disk.mkdir()
    full = checkpoints = different = kilobytes = 0
    sentences: set[str] = set()

    def train_and_tell() -> None:
        try:
            loop.train(out=disk / "run", **train)
        except InputError as error:
            said.write_text(str(error))
            raise

    with tqdm(desc="disks that are too small", unit="trial") as bar:
        while True:
            kilobytes += step
            mount(disk, kilobytes)
            had_room, _ = in_child(train_and_tell, fails=True)
            if not had_room:
                full += 1
                state = disk / "run" / "checkpoint" / "state.pt"
                if state.exists():
                    checkpoints += 1
                    torch.load(state, weights_only=True)
                sentences.add(said.read_text().split(": ", 1)[1])
                said.unlink()
                mount(disk, 1 << 20, again=True)
                in_child(lambda: loop.train(out=disk / "run", **train))
            different += not equal(outcome(disk / "run"), alone)
            subprocess.run(["umount", str(disk)], check=True)
            bar.update()
            if had_room:
                break
    found = {"full": full, "checkpoints": checkpoints, "enough": kilobytes, "sentences": sorted(sentences)}
    return {**found, "different": different}


def main() -> int:
    """Parse the command line, run the trials with mounts of their own, and keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=4, help="kilobytes from one disk to the next")
    parser.add_argument("--out", type=Path, default=Path("results/trust/full_disk.json"))
    options = parser.parse_args()
    if INSIDE not in os.environ:
        # Mounts that only this process and its children see, which needs no privilege where user namespaces are allowed.
        if not shutil.which("unshare"):
            print("this needs Linux and its command unshare", file=sys.stderr)
            return 2
        command = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "tests.trust.full_disk", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode
    with tempfile.TemporaryDirectory() as folder:
        found = trials(Path(folder), options.step)
    keep(found, options.out)
    return 1 if found["different"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
