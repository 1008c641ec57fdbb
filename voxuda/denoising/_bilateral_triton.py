"""Bilateral filter (BF, Eqs 8-9) and improved bilateral filter (IBF, Eqs 10-14) as one GPU kernel, for whole tomograms.

Each thread filters two neighbouring columns, (y, x) and (y + 1, x), and marches along z. For each slice it holds the 4 x 3
voxels in and around its columns. A slice is therefore loaded once, and its Sobel vectors are computed once and used for centres
in three slices, the one below, itself and the one above. A weight between two of the thread's own voxels is computed once for
both.
"""

import math

import torch

from voxuda.denoising.bilateral import _check
from voxuda.errors import InputError

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the GPU filter needs triton, which is not installed; pip install 'voxuda[triton]'.") from error

TILE = (4, 32)  # column pairs along y, and columns along x, per program; one pair per thread
MARCH = 64  # slices per program
WARPS = 4


@triton.jit
def _reflect(index, n):
    """Fold ``-2 .. n + 1`` into ``0 .. n - 1`` as ``pad(mode="reflect")`` does; -1 becomes 1 and n becomes n - 2."""
    return n - 1 - tl.abs(n - 1 - tl.abs(index))


@triton.jit
def _smooth(a, b, c):
    return a + 2 * b + c


@triton.jit
def _slice(volume, z, rows, columns, depth, stride_z, scale):
    """Return scaled values of slice z at the 4 x 3 voxels, and the y and x factors of the three Sobel responses there."""
    start = volume + _reflect(z, depth).to(tl.int64) * stride_z
    v = [[tl.load((start + row) + column).to(tl.float32) * scale for column in columns] for row in rows]
    smooth_x = [[_smooth(row[i], row[i + 1], row[i + 2]) for i in (0, 1, 2)] for row in v]
    slope_x = [[row[i + 2] - row[i] for i in (0, 1, 2)] for row in v]
    smooth = [[_smooth(smooth_x[j][i], smooth_x[j + 1][i], smooth_x[j + 2][i]) for i in (0, 1, 2)] for j in (0, 1, 2, 3)]
    along_x = [[_smooth(slope_x[j][i], slope_x[j + 1][i], slope_x[j + 2][i]) for i in (0, 1, 2)] for j in (0, 1, 2, 3)]
    along_y = [[smooth_x[j + 2][i] - smooth_x[j][i] for i in (0, 1, 2)] for j in (0, 1, 2, 3)]
    return [[v[j][i] for i in (1, 2, 3)] for j in (1, 2, 3, 4)], smooth, along_y, along_x


@triton.jit
def _features(below, here, above, GRADIENT: tl.constexpr):
    """Return what the range kernel compares at the 4 x 3 voxels, values (Eq 9) or Sobel vectors along z, y, x (Eqs 10-12)."""
    values, _, y1, x1 = here
    if GRADIENT:
        _, smooth0, y0, x0 = below
        _, smooth2, y2, x2 = above
        z = [[smooth2[j][i] - smooth0[j][i] for i in (0, 1, 2)] for j in (0, 1, 2, 3)]
        y = [[_smooth(y0[j][i], y1[j][i], y2[j][i]) for i in (0, 1, 2)] for j in (0, 1, 2, 3)]
        x = [[_smooth(x0[j][i], x1[j][i], x2[j][i]) for i in (0, 1, 2)] for j in (0, 1, 2, 3)]
        return [[(z[j][i], y[j][i], x[j][i]) for i in (0, 1, 2)] for j in (0, 1, 2, 3)]
    else:
        return [[(value,) for value in row] for row in values]


@triton.jit
def _weight(p, q, domain):
    """Multiply the domain Gaussian by the range Gaussian of scaled features p and q, as one power of two."""
    exponent = domain
    for c in tl.static_range(len(p)):
        exponent -= (p[c] - q[c]) * (p[c] - q[c])
    return tl.exp2(exponent)


@triton.jit
def _add(total, weights, w, value):
    return total + w * value, weights + w


@triton.jit
def _add_others(total, weights, p, own: tl.constexpr, features, values, dz: tl.constexpr, domain):
    """Add to the sums at p, in the thread's column ``own``, its neighbours in slice z + dz outside both of the columns."""
    for row in tl.static_range(3):
        for i in tl.static_range(3):
            if i != 1 or own + row == 0 or own + row == 3:
                w = _weight(p, features[own + row][i], domain * (dz * dz + (row - 1) * (row - 1) + (i - 1) * (i - 1)))
                total, weights = _add(total, weights, w, values[own + row][i])
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
    y = 2 * (tl.program_id(1) * TILE_Y + tl.arange(0, TILE_Y)[:, None])
    x = tl.program_id(2) * TILE_X + tl.arange(0, TILE_X)[None, :]
    volume = volumes + batch * stride_b
    # Threads outside the volume read its last columns; what they compute is not stored.
    rows = [_reflect(tl.minimum(y + dy, height + 1), height).to(tl.int64) * stride_y for dy in (-2, -1, 0, 1, 2, 3)]
    columns = [_reflect(tl.minimum(x, width - 1) + dx, width).to(tl.int64) * stride_x for dx in (-2, -1, 0, 1, 2)]

    below = _slice(volume, first - 2, rows, columns, depth, stride_z, scale)
    here = _slice(volume, first - 1, rows, columns, depth, stride_z, scale)
    above = _slice(volume, first, rows, columns, depth, stride_z, scale)
    previous = _features(below, here, above, GRADIENT)
    # Sums at the thread's voxels a and b of slice z - 1, over slices z - 2 and z - 1. Those of slice first - 1 are not stored.
    total_a = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    weights_a = tl.full((TILE_Y, TILE_X), 1.0, tl.float32)
    total_b = tl.full((TILE_Y, TILE_X), 0.0, tl.float32)
    weights_b = tl.full((TILE_Y, TILE_X), 1.0, tl.float32)
    voxel = ((batch * depth + first - 1) * height + y) * width + x
    for z in tl.range(first, tl.minimum(first + march, depth) + 1):
        below, here = here, above
        above = _slice(volume, z + 1, rows, columns, depth, stride_z, scale)
        features = _features(below, here, above, GRADIENT)
        # 0 is slice z - 1, 1 is slice z
        a0, b0, a1, b1 = previous[1][1], previous[2][1], features[1][1], features[2][1]
        values_a0, values_b0, values_a1, values_b1 = below[0][1][1], below[0][2][1], here[0][1][1], here[0][2][1]
        aa, ab = _weight(a0, a1, domain), _weight(a0, b1, 2 * domain)
        ba, bb = _weight(b0, a1, 2 * domain), _weight(b0, b1, domain)
        total_a, weights_a = _add(total_a, weights_a, aa, values_a1)
        total_a, weights_a = _add(total_a, weights_a, ab, values_b1)
        total_b, weights_b = _add(total_b, weights_b, ba, values_a1)
        total_b, weights_b = _add(total_b, weights_b, bb, values_b1)
        total_a, weights_a = _add_others(total_a, weights_a, a0, 0, features, here[0], 1, domain)
        total_b, weights_b = _add_others(total_b, weights_b, b0, 1, features, here[0], 1, domain)
        y_end = tl.where(z > first, height, 0)  # slice z - 1 of the first step belongs to the march below, which stores it
        tl.store(filtered + voxel, total_a / (weights_a * scale), mask=(y < y_end) & (x < width))
        tl.store(filtered + voxel + width, total_b / (weights_b * scale), mask=(y + 1 < y_end) & (x < width))
        voxel += height.to(tl.int64) * width
        level = _weight(a1, b1, domain)
        total_a, weights_a = _add(values_a1, 1.0, aa, values_a0)
        total_a, weights_a = _add(total_a, weights_a, ba, values_b0)
        total_a, weights_a = _add(total_a, weights_a, level, values_b1)
        total_b, weights_b = _add(values_b1, 1.0, bb, values_b0)
        total_b, weights_b = _add(total_b, weights_b, ab, values_a0)
        total_b, weights_b = _add(total_b, weights_b, level, values_a1)
        total_a, weights_a = _add_others(total_a, weights_a, a1, 0, previous, below[0], -1, domain)
        total_b, weights_b = _add_others(total_b, weights_b, b1, 1, previous, below[0], -1, domain)
        total_a, weights_a = _add_others(total_a, weights_a, a1, 0, features, here[0], 0, domain)
        total_b, weights_b = _add_others(total_b, weights_b, b1, 1, features, here[0], 0, domain)
        previous = features


def fused_filter(volumes: torch.Tensor, sigma_d: float = 120.0, sigma_r: float = 1.2, *, gradient: bool = True) -> torch.Tensor:
    r"""Apply the filter of Eq 8 with a window of 3, as one CUDA kernel that writes no intermediate volume.

    Up to rounding, the results equal those of :func:`~voxuda.denoising.bilateral.bilateral_filter` or, with ``gradient``, of
    :func:`~voxuda.denoising.bilateral.improved_bilateral_filter` with ``gradient="sobel"``.
    It is not differentiable. Volumes ``(B, 1, D, H, W)`` are float32 or bfloat16 on a CUDA device, with any strides; D, H and W
    are at least 4. The result is contiguous and has their dtype; it is computed in float32.

    Counted by hand, a voxel of the IBF costs 374 instructions: 15 loads, 40 for their addresses, 15 to scale them, 87 for six
    Sobel vectors, 7 for each of 23.5 weights, one of them an exponential, and 52 for the sums. The minimum would be 259: 25 for
    one Sobel vector, and 9 for each of 26 weights and sums. The code that Triton 3.7 generates for compute capability 9.0 has
    469 instructions per voxel, 67 of them moves, and uses 237 registers without spilling; for the BF it has 183 and uses 80.
    With one column per thread it had 608. It has not run on a GPU yet, so no speed is claimed.

    Raises
    ------
    InputError
        The shape, dtype or device of the volumes, or one of the widths, is not as above.
    """
    _check(volumes, 3, sigma_d, sigma_r)
    if volumes.dtype not in (torch.float32, torch.bfloat16):
        raise InputError(f"the volumes are {volumes.dtype}; the GPU filter takes float32 or bfloat16.")
    if not volumes.is_cuda and isinstance(_filter, triton.JITFunction):  # Triton's interpreter runs on the CPU
        raise InputError(f"the volumes are on {volumes.device}; the GPU filter needs them on a CUDA device.")
    batch, _, depth, height, width = volumes.shape
    stride_b, _, stride_z, stride_y, stride_x = volumes.stride()
    filtered = torch.empty(volumes.shape, dtype=volumes.dtype, device=volumes.device)
    grid = (batch * math.ceil(depth / MARCH), math.ceil(height / (2 * TILE[0])), math.ceil(width / TILE[1]))
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
            scale=math.sqrt(math.log2(math.e) / 2) / sigma_r,
            GRADIENT=gradient,
            TILE_Y=TILE[0],
            TILE_X=TILE[1],
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    return filtered
