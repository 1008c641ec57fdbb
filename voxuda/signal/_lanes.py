"""Vectors of float32 in compiled loops, asked for by name: what compilers make of simple loops only.

While numba compiles a function it calls those marked as intrinsic, which write instructions into it; an operator between
:class:`Lanes` is such an instruction. What numba compiled it keeps on disk until the file of the function changes. So the
digest of this file stands in those that generate code by it, and a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Voxels worked on at once: a vector of AVX-512, two of AVX, four of NEON."""

# 2^f on [-1/2, 1/2]: interpolation in six Chebyshev points, highest power first; relative error 1e-7 before rounding.
_POLYNOMIAL = (0.00133908634, 0.00967603192, 0.0555035711, 0.240221075, 0.693147188, 1.00000008)

_ROUNDS = 1.5 * 2.0**23 + 127
"""Added to a float32 below 2^22, it leaves no bits for a fraction: the last eight are the whole part, as an exponent has it."""

FLOATS, _INTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(32), LANES)
_FUSED = ("contract",)  # a product and a sum may be rounded at once


def compiled(function: Callable) -> Any:
    """A function that numba compiles when it is first called, and keeps on disk; other threads run beside it."""
    options: Any = dict(nogil=True, error_model="numpy")
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that numba may write to
        return numba.njit(**options)(function)


class Lanes:
    """Numbers in the lanes of vectors, while code is generated: an operator emits its instruction for each vector in turn.

    An instruction waits for the one whose result it takes, several cycles long. Vectors in step fill the wait.
    """

    def __init__(self, builder: ir.IRBuilder, *vectors: ir.Value) -> None:
        self.builder, self.vectors = builder, vectors

    def __iter__(self) -> Iterator[Lanes]:
        return (Lanes(self.builder, vector) for vector in self.vectors)

    def each(self, instruction: Callable[..., ir.Value], *others: Lanes) -> Lanes:
        """Emit an instruction for each vector; a single vector goes with all of another operand's."""
        operands = [self.vectors, *(other.vectors for other in others)]
        most = max(len(vectors) for vectors in operands)
        rows = zip(*(vectors * (most // len(vectors)) for vectors in operands), strict=True)
        return Lanes(self.builder, *(instruction(*row) for row in rows))

    def _with(self, instruction: Callable, other: Lanes | float) -> Lanes:
        right = other if isinstance(other, Lanes) else Lanes(self.builder, constant(other))
        return self.each(partial(instruction, flags=_FUSED), right)

    def __add__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fadd, other)

    def __sub__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fsub, other)

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fmul, other)

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self._with(self.builder.fdiv, other)


def constant(number: float) -> ir.Constant:
    """A vector of one number, known before."""
    return ir.Constant(FLOATS, [float(np.float32(number))] * LANES)


def in_all(builder: ir.IRBuilder, scalar: ir.Value) -> Lanes:
    """One number in every lane."""
    first = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return Lanes(builder, builder.shuffle_vector(first, first, ir.Constant(_INTS, [0] * LANES)))


class Row:
    """A float32 array ``(N,)``, while code is generated: read and written a vector at a time."""

    def __init__(self, builder: ir.IRBuilder, data: ir.Value) -> None:
        self.builder, self.data = builder, data

    def _at(self, place: ir.Value) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(self.data, [place]), FLOATS.as_pointer())

    def __getitem__(self, places: ir.Value | Sequence[ir.Value]) -> Lanes:
        places = places if isinstance(places, Sequence) else [places]
        return Lanes(self.builder, *(self.builder.load(self._at(place), align=4) for place in places))

    def __setitem__(self, place: ir.Value, lanes: Lanes) -> None:
        (vector,) = lanes.vectors
        self.builder.store(vector, self._at(place), align=4)


def exp2_of(x: Lanes) -> Lanes:
    """2^x for x ≤ 0: a polynomial times a whole power of two, written straight into exponent bits; 0 below -126.5."""
    builder, least = x.builder, constant(-127)
    # The exponent of 2^-127 is written as 0, which is what a float 0 has. What is no number stays.
    x = x.each(lambda vector: builder.select(builder.fcmp_ordered("<", vector, least), least, vector))
    rounded = x + _ROUNDS
    f = x - (rounded - _ROUNDS)
    power = Lanes(builder, constant(_POLYNOMIAL[0]))
    for coefficient in _POLYNOMIAL[1:]:
        power = power * f + coefficient
    drop = ir.Constant(_INTS, [23] * LANES)  # all bits but the exponent's
    return power * rounded.each(lambda vector: builder.bitcast(builder.shl(builder.bitcast(vector, _INTS), drop), FLOATS))


def rows_of(context: Any, builder: ir.IRBuilder, kind: Any, argument: ir.Value) -> list[Row]:
    """The rows of an argument that is an array or a tuple of arrays."""
    several = isinstance(kind, numba.types.BaseTuple)
    kinds, arrays = (list(kind), cgutils.unpack_tuple(builder, argument)) if several else ([kind], [argument])
    if any(k.dtype != numba.float32 or k.layout != "C" for k in kinds):  # they are read as they lie in memory
        raise numba.errors.TypingError(f"{kind} is not float32 without gaps")
    return [Row(builder, context.make_array(k)(context, builder, a).data) for k, a in zip(kinds, arrays, strict=True)]


@intrinsic
def _exp2_of_lanes(_: Any, x: Any, at: Any, out: Any) -> Any:
    """Write 2^x from ``at`` on."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        given, written = (rows_of(context, builder, signature.args[i], arguments[i])[0] for i in (0, 2))
        written[arguments[1]] = exp2_of(given[arguments[1]])
        return context.get_dummy_value()

    return numba.void(x, at, out), generate


@compiled
def exp2_below_0(x: np.ndarray) -> np.ndarray:
    """2^x of a float32 array ``(N,)`` with x ≤ 0, as the filters' weights have it: 0 below -126.5."""
    padded, result = np.zeros(len(x) + LANES, np.float32), np.empty(len(x) + LANES, np.float32)
    padded[: len(x)] = x
    for at in range(0, len(x), LANES):
        _exp2_of_lanes(padded, at, result)  # type: ignore[call-arg]
    return result[: len(x)]
