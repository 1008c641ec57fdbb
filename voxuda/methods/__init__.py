"""One file a method; :func:`build` makes one by its name."""

from voxuda.methods.base import Batch, Method
from voxuda.methods.dann import DANN
from voxuda.methods.source_only import SourceOnly
from voxuda.methods.supervised import Supervised
from voxuda.methods.vox_uda import VoxUDA, VoxUDAOptions
from voxuda.methods.zero_shot import ZeroShot
from voxuda.volumes import InputError

METHODS: dict[str, type[Method]] = {
    "source-only": SourceOnly,
    "supervised": Supervised,
    "dann": DANN,
    "vox-uda": VoxUDA,
    "zero-shot": ZeroShot,
}

__all__ = ["METHODS", "Batch", "Method", "VoxUDA", "VoxUDAOptions", "build"]


def build(name: str, width: int, vox_uda: VoxUDAOptions | None = None) -> Method:
    """Make a method by name.

    Raises
    ------
    InputError
        Unknown name.
    """
    if name not in METHODS:
        raise InputError(f"{name}: no such method; choose from {', '.join(METHODS)}.")
    if name == "vox-uda":
        return VoxUDA(width, vox_uda)
    return METHODS[name](width)
