"""Both bilateral filters on one thread, by rows and by loops, beside ITK's plain one; and the processor's limits."""

import itk
import pytest
import torch
from torch.nn.functional import pad

from voxuda.denoising.bilateral import bilateral_filter, gradients, improved_bilateral_filter, weighted_mean_of_rows

pytestmark = pytest.mark.filterwarnings("ignore:builtin type [sS]wig:DeprecationWarning")  # as an error it ends the process
SHAPES = {"16x32": (16, 1, 32, 32, 32), "128": (1, 1, 128, 128, 128)}
SIGMA_R = {"bf": 0.2, "ibf": 1.2}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(1)
    yield
    torch.set_num_threads(before)


def of_itk(volumes):
    """ITK's filter with a window of 3; it has a table of 100 range weights where ours are exact."""
    filters = []
    for volume in volumes[:, 0]:
        image = itk.image_from_array(volume.numpy())
        plain = itk.BilateralImageFilter[type(image), type(image)].New(image)
        plain.AutomaticKernelSizeOff()
        plain.SetRadius(1)
        plain.SetDomainSigma(120.0)
        plain.SetRangeSigma(SIGMA_R["bf"])
        filters.append(plain)

    def run():
        for plain in filters:
            plain.Modified()
            plain.Update()

    return run


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", SIGMA_R)
@pytest.mark.parametrize("way", ["rows", "loops"])
def test_filter(against, way, kind, shape):
    volumes = torch.rand(SHAPES[shape], generator=torch.Generator().manual_seed(0))

    def by_rows():
        padded = pad(volumes, [1] * 6, mode="reflect")
        return weighted_mean_of_rows(padded, gradients(volumes, 1) if kind == "ibf" else padded, 1, 120.0, SIGMA_R[kind])

    def by_loops():
        return {"bf": bilateral_filter, "ibf": improved_bilateral_filter}[kind](volumes, sigma_r=SIGMA_R[kind])

    against(
        f"filter-{kind}-{way}-{shape}",
        "million voxels",
        volumes.numel() / 1e6,
        {"rows": by_rows, "loops": by_loops}[way],
        of_itk(volumes),
        "ITK BilateralImageFilter, radius 1, on values; one thread each",
        rounds=9,
    )


def test_data_set(against):
    """The paper's 1,033 target samples, filtered once for a whole training."""
    volumes = torch.rand(1033, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = lambda: [improved_bilateral_filter(part) for part in volumes.split(64)]  # noqa: E731
    against("filter-data-set", "data sets of 1,033 x 32³ voxels", 1, ours, rounds=3)


def test_exponentials(against):
    """The limit of arithmetic: 13 or 26 exponentials a voxel, here in cache."""
    exponents = -torch.rand(65536)
    weights = torch.empty_like(exponents)
    against("limit-exp", "million exponentials", 6.5536, lambda: [torch.exp(exponents, out=weights) for _ in range(100)])


def test_copy(against):
    """The limit of memory: each voxel read and written once."""
    large = torch.rand(64 * 2**20)
    copy = torch.empty_like(large)
    against("limit-copy", "million voxels", 64 * 2**20 / 1e6, lambda: copy.copy_(large))
