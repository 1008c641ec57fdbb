"""The methods by name."""

from voxuda.errors import InputError
from voxuda.methods.advent import ADVENT
from voxuda.methods.asc import ASC, ASCSlices
from voxuda.methods.base import Method
from voxuda.methods.cbst import CBST
from voxuda.methods.dann import DANN
from voxuda.methods.domain_randomisation import DomainRandomisation
from voxuda.methods.fda import FDA
from voxuda.methods.le_uda import LEUDA, LEUDASlices
from voxuda.methods.mean_teacher import MeanTeacher
from voxuda.methods.mic import MIC
from voxuda.methods.minent import MinEnt
from voxuda.methods.options import VoxUDAOptions
from voxuda.methods.pdam import PDAM
from voxuda.methods.self_training import SelfTraining
from voxuda.methods.source_only import SourceOnly
from voxuda.methods.supervised import Supervised
from voxuda.methods.tent import TENT
from voxuda.methods.vox_uda import VoxUDA
from voxuda.methods.zero_shot import ZeroShot
from voxuda.networks.choices import Normalisation

METHODS: dict[str, type[Method]] = {
    "source-only": SourceOnly,
    "supervised": Supervised,
    "dann": DANN,
    "pdam": PDAM,
    "asc": ASC,
    "asc-slices": ASCSlices,
    "le-uda": LEUDA,
    "le-uda-slices": LEUDASlices,
    "vox-uda": VoxUDA,
    "mean-teacher": MeanTeacher,
    "fda": FDA,
    "minent": MinEnt,
    "advent": ADVENT,
    "cbst": CBST,
    "mic": MIC,
    "tent": TENT,
    "domain-randomisation": DomainRandomisation,
    "zero-shot": ZeroShot,
    "self-training": SelfTraining,
}
"""All methods, the paper's in its order, then other baselines that readers expect today, then ours."""


def method_class(name: str) -> type[Method]:
    """Return the class of a method, or raise ``InputError`` if there is none of that name."""
    if name not in METHODS:
        raise InputError(f"{name}: no such method; choose from {', '.join(METHODS)}.")
    return METHODS[name]


def build(name: str, width: int, vox_uda: VoxUDAOptions | None = None, *, normalisation: Normalisation = "batch") -> Method:
    """Create a method by name, with ``width`` channels in the first stage of its network; only vox-uda has options."""
    if name == "vox-uda":
        return VoxUDA(width, vox_uda, normalisation=normalisation)
    return method_class(name)(width, normalisation=normalisation)
