"""Bilateral filter (BF, Eqs 8-9) and improved bilateral filter (IBF, Eqs 10-14) as one GPU kernel, for whole tomograms.

A thread owns one column (y, x) and marches along z. Of each slice it holds the 3 x 3 voxels around its column, so a slice
is loaded once, its Sobel vectors are computed once and serve three centres: the slice below, itself and the slice above.
"""

import math

import torch

from voxuda.bilateral import _check
from voxuda.volumes import InputError

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the GPU filter needs triton, which is not installed; pip install 'voxuda[triton]'.") from error

TILE = (4, 32)  # columns (y, x) of a program, one a thread
MARCH = 64  # slices that a program filters
WARPS = 4
REGISTERS = 168  # a thread's share when three programs of 128 threads run on a multiprocessor (65536 registers)


@triton.jit
def _reflect(index, n):
    """Fold ``-2 .. n + 1`` into ``0 .. n - 1`` as ``pad(mode="reflect")`` does: -1 becomes 1 and n becomes n - 2."""
    return n - 1 - tl.abs(n - 1 - tl.abs(index))


@triton.jit
def _smooth(a, b, c):
    return a + 2 * b + c


@triton.jit
def _slice(volume, z, rows, columns, depth, stride_z):
    """Values of slice z at the 3 x 3 voxels, and there the factors along y and x of the three Sobel responses."""
    start = volume + _reflect(z, depth).to(tl.int64) * stride_z
    v = [[tl.load(start + row + column).to(tl.float32) for column in columns] for row in rows]
    smooth_y = [[_smooth(v[j][i], v[j + 1][i], v[j + 2][i]) for i in (0, 1, 2, 3, 4)] for j in (0, 1, 2)]
    slope_y = [[v[j + 2][i] - v[j][i] for i in (0, 1, 2, 3, 4)] for j in (0, 1, 2)]
    smooth = [[_smooth(row[i], row[i + 1], row[i + 2]) for i in (0, 1, 2)] for row in smooth_y]
    along_y = [[_smooth(row[i], row[i + 1], row[i + 2]) for i in (0, 1, 2)] for row in slope_y]
    along_x = [[row[i + 2] - row[i] for i in (0, 1, 2)] for row in smooth_y]
    return [[v[j][i] for i in (1, 2, 3)] for j in (1, 2, 3)], smooth, along_y, along_x


@triton.jit
def _features(below, here, above, GRADIENT: tl.constexpr):
    """What the range kernel compares at the 3 x 3 voxels: values (Eq 9) or Sobel vectors along z, y, x (Eqs 10-12)."""
    values, _, y1, x1 = here
    if GRADIENT:
        _, smooth0, y0, x0 = below
        _, smooth2, y2, x2 = above
        z = [[smooth2[j][i] - smooth0[j][i] for i in (0, 1, 2)] for j in (0, 1, 2)]
        y = [[_smooth(y0[j][i], y1[j][i], y2[j][i]) for i in (0, 1, 2)] for j in (0, 1, 2)]
        x = [[_smooth(x0[j][i], x1[j][i], x2[j][i]) for i in (0, 1, 2)] for j in (0, 1, 2)]
        return [[(z[j][i], y[j][i], x[j][i]) for i in (0, 1, 2)] for j in (0, 1, 2)]
    else:
        return [[(value,) for value in row] for row in values]


@triton.jit
def _weight(p, q, domain, scale):
    """Domain Gaussian times range Gaussian of features p and q, as a power of two."""
    square = (p[0] - q[0]) * (p[0] - q[0])
    for c in tl.static_range(1, len(p)):
        square += (p[c] - q[c]) * (p[c] - q[c])
    return tl.exp2(domain - scale * square)


@triton.jit
def _add_ring(total, weights, p, features, values, dz, domain, scale):
    """Add to the sums at p its eight neighbours in slice z + dz that are not in its own column."""
    for j in tl.static_range(3):
        for i in tl.static_range(3):
            if j != 1 or i != 1:
                w = _weight(p, features[j][i], domain * (dz * dz + (j - 1) * (j - 1) + (i - 1) * (i - 1)), scale)
                total += w * values[j][i]
                weights += w
    return total, weights


@triton.jit
def _filter(
    volumes,
    filtered,
    depth,
    height,
    width,
    stride_b,
    stride_z,
    stride_y,
    stride_x,
    march,
    domain,
    scale,
    GRADIENT: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
):
    marches = (depth + march - 1) // march
    batch = (tl.program_id(0) // marches).to(tl.int64)  # offsets are int64: a tomogram can exceed 2^31 voxels
    first = tl.program_id(0) % marches * march
    y = tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tl.program_id(2) * TILE_X + tl.arange(0, TILE_X)[None, :]
    volume = volumes + batch * stride_b
    # Threads outside the volume read its last column and store nothing.
    rows = [_reflect(tl.minimum(y, height - 1) + dy, height).to(tl.int64) * stride_y for dy in (-2, -1, 0, 1, 2)]
    columns = [_reflect(tl.minimum(x, width - 1) + dx, width).to(tl.int64) * stride_x for dx in (-2, -1, 0, 1, 2)]

    below = _slice(volume, first - 2, rows, columns, depth, stride_z)
    here = _slice(volume, first - 1, rows, columns, depth, stride_z)
    above = _slice(volume, first, rows, columns, depth, stride_z)
    previous = _features(below, here, above, GRADIENT)
    # Sums at p, in slice z - 1, over slices z - 2 and z - 1. Those of slice first - 1 are not stored: any number will do.
    total = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    weights = tl.full((TILE_Y, TILE_X), 1.0, tl.float32)
    for z in tl.range(first, tl.minimum(first + march, depth) + 1):
        below, here = here, above
        above = _slice(volume, z + 1, rows, columns, depth, stride_z)
        features = _features(below, here, above, GRADIENT)
        p, v_p = previous[1][1], below[0][1][1]
        q, v_q = features[1][1], here[0][1][1]
        w = _weight(p, q, domain, scale)  # the same from both ends
        total, weights = _add_ring(total + w * v_q, weights + w, p, features, here[0], 1, domain, scale)
        y_end = tl.where(z > first, height, 0)  # p of the first step belongs to the march below, which stores it
        voxel = ((batch * depth + z - 1) * height + y) * width + x
        tl.store(filtered + voxel, total / weights, mask=(y < y_end) & (x < width))
        total, weights = _add_ring(v_q + w * v_p, 1.0 + w, q, previous, below[0], -1, domain, scale)
        total, weights = _add_ring(total, weights, q, features, here[0], 0, domain, scale)
        previous = features


def fused_filter(volumes: torch.Tensor, sigma_d: float = 120.0, sigma_r: float = 1.2, *, gradient: bool = True) -> torch.Tensor:
    r"""Filter of Eq 8 with a window of 3, as one CUDA kernel that writes no intermediate volume.

    The results are those of :func:`voxuda.bilateral.bilateral_filter` and :func:`voxuda.bilateral.improved_bilateral_filter`
    with ``gradient="sobel"``, up to rounding. No gradient flows back through it.

    By hand, a voxel of the IBF costs 25 loads with 60 instructions for their addresses, 135 for Sobel vectors (nine columns, 15
    each) and 25 weights of 10, one of them an exponential; 26 weights and one Sobel vector, 259, would be the least. (Only the
    weight straight up is shared by both its ends, since the others' ends belong to two threads.) The code that Triton 3.9
    makes for compute capability 9.0 has 608 instructions a voxel, a hundred of them moves, in 168 registers and without
    spilling; for the BF 240 in 80. It has not run on a GPU yet, so no speed is claimed.

    Parameters
    ----------
    volumes : Tensor
        ``(B, 1, D, H, W)`` float32 or bfloat16 on a CUDA device, of any strides; D, H and W at least 4. σ_r is in the unit of
        the values for the BF, of the unnormalised Sobel response for the IBF. Borders are reflected.
    sigma_d : float
        Width of the domain kernel in voxels.
    sigma_r : float
        Width of the range kernel.
    gradient : bool
        Compare Sobel vectors (IBF, Eqs 10-14) and not values (BF, Eqs 8-9).

    Returns
    -------
    Tensor
        ``(B, 1, D, H, W)``, contiguous, of the volumes' dtype; computed in float32.

    Raises
    ------
    InputError
        The volumes' shape, dtype or device, or one of the widths, is not as above.
    """
    _check(volumes, 3, sigma_d, sigma_r)
    if volumes.dtype not in (torch.float32, torch.bfloat16):
        raise InputError(f"the volumes are {volumes.dtype}; the GPU filter takes float32 or bfloat16.")
    if not volumes.is_cuda and isinstance(_filter, triton.JITFunction):  # Triton's interpreter runs on the CPU
        raise InputError(f"the volumes are on {volumes.device}; the GPU filter needs them on a CUDA device.")
    batch, _, depth, height, width = volumes.shape
    stride_b, _, stride_z, stride_y, stride_x = volumes.stride()
    filtered = torch.empty(volumes.shape, dtype=volumes.dtype, device=volumes.device)
    grid = (batch * math.ceil(depth / MARCH), math.ceil(height / TILE[0]), math.ceil(width / TILE[1]))
    with torch.cuda.device_of(volumes):
        _filter[grid](
            volumes,
            filtered,
            depth,
            height,
            width,
            stride_b,
            stride_z,
            stride_y,
            stride_x,
            MARCH,
            domain=-math.log2(math.e) / (2 * sigma_d**2),
            scale=math.log2(math.e) / (2 * sigma_r**2),
            GRADIENT=gradient,
            TILE_Y=TILE[0],
            TILE_X=TILE[1],
            num_warps=WARPS,
            maxnreg=REGISTERS,
            enable_fp_fusion=True,
        )
    return filtered
