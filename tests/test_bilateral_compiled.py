import os
import shutil
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import pad

from voxuda.bilateral import gradients, reference_filter
from voxuda.bilateral_compiled import compiled_filter, exp2_below_0
from voxuda.volumes import InputError

COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def test_exponential_has_the_stated_error():
    x = torch.cat([-torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 100, -torch.arange(101) / 1.0])
    relative = exp2_below_0(x).double() / torch.exp2(x.double()) - 1
    assert relative.abs().max() < 5e-7
    assert (exp2_below_0(torch.tensor([-101.0, -1e30, -torch.inf])) == 2.0**-100 * exp2_below_0(torch.zeros(1))).all()


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("sigma_r", [0.05, 1.2])
def test_compiled_equals_the_equation(generator, sigma_r):
    x = torch.rand(2, 1, 9, 10, 11, generator=generator)
    ibf = compiled_filter(x, 1.5, sigma_r)
    torch.testing.assert_close(ibf.double(), reference_filter(x, gradients(x.double(), 1), 1.5, sigma_r), atol=1e-5, rtol=0)
    bf = compiled_filter(x, 1.5, sigma_r, gradient=False)
    expected = reference_filter(x, pad(x, [1] * 6, mode="reflect"), 1.5, sigma_r)
    torch.testing.assert_close(bf.double(), expected, atol=1e-5, rtol=0)


def test_without_a_compiler_the_plain_filter_runs_and_says_so(tmp_path):
    code = (
        "import torch, warnings\n"
        "from voxuda.bilateral import improved_bilateral_filter\n"
        "from voxuda.bilateral_compiled import compiled_filter\n"
        "x = torch.rand(1, 1, 8, 8, 8)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    same = torch.equal(compiled_filter(x), improved_bilateral_filter(x))\n"
        "print(same, [str(w.message) for w in caught if 'voxuda' in w.filename or w.filename == '<string>'])\n"
    )
    empty = {"CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | empty, capture_output=True, text=True, check=True)
    assert done.stdout == "True ['torch.compile could not compile here: is there a C++ compiler? The plain filter runs.']\n"


def test_float64_goes_the_plain_way(generator):
    x = torch.rand(1, 1, 8, 8, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(compiled_filter(x), reference_filter(x, gradients(x, 1), 120.0, 1.2), atol=1e-12, rtol=0)


def test_bad_shape_is_refused():
    with pytest.raises(InputError, match=r"shape \(8, 8, 8\) is not a batch"):
        compiled_filter(torch.rand(8, 8, 8))
