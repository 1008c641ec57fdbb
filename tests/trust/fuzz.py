"""Damage files of every kind that is read, a thousand ways, and see that each gives a right answer or one clear sentence."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from tests.trust.interrupt import in_child, keep, prepare
from voxuda import methods
from voxuda.data.mrc import Volume, read_mrc, write_mrc
from voxuda.data.subtomograms import load_domain
from voxuda.errors import InputError
from voxuda.training import loop
from voxuda.training.run_folder import load_network

SECONDS = 20
"""A case that takes longer hangs; the slowest right answer takes well under one second."""

MEMORY = 256 << 20
"""Bytes that a case may use beyond what the libraries hold; the files are of some kilobytes."""


# --- damage --------------------------------------------------------------------------------------------------------


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """Truncate, overwrite, insert, delete, repeat or blank some bytes of any file."""
    at, length = draw.randrange(len(content)), draw.choice([1, 4, 64, 1024])
    chance = draw.choice(["truncate", "overwrite", "insert", "delete", "repeat", "blank", "flip"])
    match chance:
        case "truncate":
            return content[:at]
        case "overwrite":
            return content[:at] + draw.randbytes(length) + content[at + length :]
        case "insert":
            return content[:at] + draw.randbytes(length) + content[at:]
        case "delete":
            return content[:at] + content[at + length :]
        case "repeat":
            return content[:at] + content[at : at + length] * 3 + content[at + length :]
        case "blank":
            return content[:at] + bytes(length) + content[at + length :]
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def damage_mrc(content: bytes, draw: random.Random) -> bytes:
    """Give one of the header's 256 words another value: sizes, mode, axes, cell and all else."""
    words = [0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 16, 17, 18, 22, 23, 24, 26, 27, 52, 53, *range(256)]
    at = 4 * draw.choice(words)
    values = [0, 1, -1, 2, 3, 6, 12, 101, 10**6, 2**31 - 1, -(2**31), draw.getrandbits(31), 0x7FC00000, 0x7F800000]
    return content[:at] + draw.choice(values).to_bytes(4, "little", signed=True) + content[at + 4 :]


def damage_packed(content: bytes, draw: random.Random) -> bytes:
    """The same inside a file that is whole as a compressed one."""
    return gzip.compress(damage_mrc(gzip.decompress(content), draw), compresslevel=1)


def damage_text(content: bytes, draw: random.Random) -> bytes:
    """Replace, drop, repeat or swap one word or line of a text file."""
    lines = content.decode().splitlines()
    row = draw.randrange(len(lines))
    words = lines[row].split()
    odd = "nan inf -1 0 1e400 9999999999999999999 '' \" ' # loop_ data_ _rlnImageName 1@ @a.mrc 7@a.mrc / .. é \x00 ; x".split()
    match draw.choice(["word", "word", "word", "drop", "repeat", "swap", "cut"]):
        case "word" if words:
            words[draw.randrange(len(words))] = draw.choice([*odd, "x" * 10**5])
            lines[row] = " ".join(words)
        case "drop":
            del lines[row]
        case "repeat":
            lines.insert(row, lines[row])
        case "swap":
            other = draw.randrange(len(lines))
            lines[row], lines[other] = lines[other], lines[row]
        case _:
            lines[row] = " ".join(words[:-1])
    return "\n".join(lines).encode()


def damage_json(content: bytes, draw: random.Random) -> bytes:
    """Give one value, at any depth, another value or kind, or take it away."""
    whole = json.loads(content)
    inside, found = whole, []
    stack = [whole]
    while stack:
        inside = stack.pop()
        keys = inside.keys() if isinstance(inside, dict) else range(len(inside))
        for key in keys:
            found.append((inside, key))
            if isinstance(inside[key], (dict, list)):
                stack.append(inside[key])
    inside, key = draw.choice(found)
    if draw.random() < 0.2:
        del inside[key]
    else:
        odd = [
            None,
            True,
            -1,
            0,
            0.5,
            3,
            10**6,
            2**70,
            1e308,
            float("nan"),
            float("inf"),
            "",
            "x",
            "\x00",
            [],
            {},
            [1, 2],
            {"a": 1},
        ]
        inside[key] = draw.choice(odd)
    return json.dumps(whole).encode()


class Evil:
    """Unpickling this makes a file: what a checkpoint must never be able to do."""

    def __reduce__(self) -> tuple:
        return os.mkdir, (TRAP,)


TRAP = os.path.join(tempfile.gettempdir(), f"voxuda-fuzz-trap-{os.getpid()}")


def damage_checkpoint(content: bytes, draw: random.Random) -> bytes:
    """Put code, other objects or damaged bytes in the place of a member of the archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            member = old.read(name)
            if name.endswith("data.pkl") and draw.random() < 0.5:
                state = draw.choice([Evil(), {"method": Evil(), "epoch": 1}, [], None, {"epoch": 1}, 3, {"method": {}}, print])
                member = pickle.dumps(state, protocol=2)
            elif name == chosen and member:
                member = damage_bytes(member, draw)
            new.writestr(name, member)
    return out.getvalue()


def damage_safetensors(content: bytes, draw: random.Random) -> bytes:
    """Let the header lie: about its length, or about type, shape or place of a tensor."""
    length = int.from_bytes(content[:8], "little")
    if draw.random() < 0.2:
        return draw.choice([0, 1, length - 1, 2**31, 2**63]).to_bytes(8, "little") + content[8:]
    header = damage_json(content[8 : 8 + length], draw)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


# --- what is read, and how -----------------------------------------------------------------------------------------


@dataclass
class Kind:
    """A kind of file: a good one in a folder of its own, what damages it, and what reads it and checks the answer."""

    path: Path
    damages: list[Callable[[bytes, random.Random], bytes]]
    read: Callable[[], None]


def finite(tensor: torch.Tensor) -> None:
    """An answer that holds NaN is none."""
    assert torch.isfinite(tensor).all(), "an answer with NaN or infinity"


def as_stored(content: bytes) -> np.ndarray:
    """The voxels of an MRC file by the format's definition, without the library that the package reads with."""
    order = "<" if content[212:213] == b"D" else ">"
    words = np.frombuffer(content[:1024], f"{order}i4")
    kind = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}[int(words[3])]
    x, y, z = (int(word) for word in words[:3])
    voxels = np.frombuffer(content, f"{order}{kind}", x * y * z, offset=1024 + int(words[23]))
    return voxels.reshape(z, y, x).astype(np.float32)


def right(volume: Volume, content: bytes) -> None:
    """An answer is right if it holds the voxels that the file does, in their order."""
    stored = as_stored(content)
    assert np.array_equal(np.asarray(volume.data, np.float32).reshape(stored.shape), stored), "other voxels than the file's"


def kinds(base: Path) -> dict[str, Kind]:
    """Good files of each kind that the package reads, of some kilobytes each."""
    config = prepare(base)
    in_child(lambda: loop.train(config, base / "run", progress=False))
    for name in ("network", "weights", "resumed"):
        shutil.copytree(base / "run", base / name)
    mrc, packed, star = base / "one" / "a.mrc", base / "packed" / "a.mrc.gz", base / "star" / "set.star"

    def make() -> None:
        for folder in ("one", "packed", "star"):
            (base / folder).mkdir()
        source = load_domain(config.source)
        write_mrc(mrc, source.volumes[0, 0], 10.0)
        packed.write_bytes(gzip.compress(mrc.read_bytes()))
        write_mrc(star.parent / "stack.mrcs", source.volumes[:3, 0], 10.0)
        rows = "\n".join(f"{i}@stack.mrcs 10.0 {i}" for i in (1, 2, 3))
        head = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnPixelSize #2\n_rlnClassNumber #3\n"
        star.write_text(f"{head}{rows}\n")

    in_child(make)

    def read_volume() -> None:
        for memory_map in (False, True):
            volume = read_mrc(mrc, memory_map=memory_map)
            right(volume, mrc.read_bytes())
            if not memory_map:
                finite(torch.from_numpy(volume.data))
        load_domain(mrc.parent)

    def read_packed() -> None:
        volume = read_mrc(packed)
        right(volume, gzip.decompress(packed.read_bytes()))
        finite(torch.from_numpy(volume.data))

    def read_star() -> None:
        domain = load_domain(star)
        finite(domain.volumes)
        assert domain.volumes.shape[1] == 1 and len(domain) > 0

    def read_own() -> None:
        domain = load_domain(base / "source")
        assert len(domain) > 0 and domain.masks is not None
        finite(domain.volumes)
        right(read_mrc(base / "source" / "volumes.mrcs"), (base / "source" / "volumes.mrcs").read_bytes())

    def read_network(run: Path) -> None:
        finite(load_network(run)(torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))))

    def resume() -> None:
        method = methods.build(config.method, 2, config.vox_uda)
        optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), fused=True)
        assert loop.load_checkpoint(base / "resumed" / "checkpoint" / "state.pt", method, optimizer) >= 0

    return {
        "volume": Kind(mrc, [damage_mrc, damage_mrc, damage_bytes], read_volume),
        "compressed volume": Kind(packed, [damage_packed, damage_packed, damage_bytes], read_packed),
        "star file": Kind(star, [damage_text, damage_text, damage_bytes], read_star),
        "table of samples": Kind(base / "source" / "samples.csv", [damage_text, damage_bytes], read_own),
        "stack of volumes": Kind(base / "source" / "volumes.mrcs", [damage_mrc, damage_bytes], read_own),
        "configuration": Kind(base / "network" / "config.json", [damage_json, damage_json, damage_bytes],
                              lambda: read_network(base / "network")),
        "weights": Kind(base / "weights" / "weights.safetensors", [damage_safetensors, damage_bytes],
                        lambda: read_network(base / "weights")),
        "checkpoint": Kind(base / "resumed" / "checkpoint" / "state.pt", [damage_checkpoint, damage_bytes], resume),
    }  # fmt: skip


# --- trials --------------------------------------------------------------------------------------------------------


def attempt(kind: Kind) -> str:
    """Read the file in a process of its own: "answer", "sentence", or what is wrong."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        # Sixteen times as much may be reserved, which pandas does with a part of it, before the system says no.
        reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 16 * MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (reserved, reserved))
        warnings.simplefilter("error")
        signal.alarm(SECONDS)
        try:
            kind.read()
            said = "answer"
        except InputError as error:
            sentence = str(error)
            one = "\n" not in sentence and sentence.endswith(".") and len(sentence) < 1000
            named = any(path in sentence for path in (str(kind.path), str(kind.path.parent)))
            said = "sentence" if one and named else f"not one sentence that names the file: {sentence}"
        except BaseException:
            said = traceback.format_exc(limit=-3)
        os.write(send, said.encode(errors="replace")[:4000])
        os._exit(0)
    os.close(send)
    with open(receive, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGALRM:
        return "hang"
    if used.ru_maxrss * 1024 > int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() + MEMORY:
        return f"{used.ru_maxrss / 1e6:.1f} GB of memory"
    return said if code == 0 else f"crash {code}"


def trials(base: Path, cases: int, seed: int = 0, wrong: Path | None = None) -> dict[str, dict[str, int]]:
    """Read ``cases`` damaged files, of each kind as many; a file that is read wrongly is copied to ``wrong``.

    Returns
    -------
    dict
        By kind: how many gave an ``answer``, a ``sentence`` or a ``fault``.
    """
    torch.set_num_threads(1)  # no threads, see in_child
    draw = random.Random(seed)
    found = {}
    prepared = kinds(base)
    for name, kind in prepared.items():
        good = kind.path.read_bytes()
        if (said := attempt(kind)) != "answer":
            raise RuntimeError(f"{name}: the good file is not read: {said}")
        counts: Counter[str] = Counter(answer=0, sentence=0, fault=0)
        for case in tqdm(range(-(-cases // len(prepared))), desc=name, unit="file"):
            kind.path.write_bytes(draw.choice(kind.damages)(good, draw))
            said = attempt(kind)
            if os.path.exists(TRAP):
                os.rmdir(TRAP)
                said = "code in the file was run"
            counts[said if said in ("answer", "sentence") else "fault"] += 1
            if said not in ("answer", "sentence"):
                print(f"{name}, case {case}: {said}", file=sys.stderr)
                if wrong:
                    wrong.mkdir(parents=True, exist_ok=True)
                    shutil.copy(kind.path, wrong / f"{case}-{kind.path.name}")
        kind.path.write_bytes(good)
        found[name] = dict(counts)
    return found


def main() -> int:
    """Parse the command line, run the trials, and keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4000, help="damaged files, of each kind as many")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage")
    parser.add_argument("--keep", type=Path, help="folder for the files that are read wrongly")
    parser.add_argument("--out", type=Path, default=Path("results/trust/fuzz.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = trials(Path(folder), options.cases, options.seed, options.keep)
    keep({"kinds": found, "seed": options.seed}, options.out)
    return 1 if any(counts["fault"] for counts in found.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
