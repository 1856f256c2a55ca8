"""Vectors of 16 float32 for numba, so that kernels run at full width on every processor.

LLVM turns each operation into one AVX-512 instruction, two AVX2 instructions, or four of SSE or
NEON. LLVM may not reorder arithmetic here: a multiplication and an addition are fused only by
`fma`, and sums of lanes have one fixed order. So all processors with fused multiply-add give the
same bits, whatever their width.

Operations work on `Lanes` (16 float32) and `IntLanes` (16 int32), which exist only inside kernels.
`+`, `-`, `*` are defined for both, `/` for `Lanes`. Arrays are flat, indices count elements, and
indices are not checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numba.extending
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.types.containers import UniTuple
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

__all__ = [
    "NUM_LANES",
    "IntLanes",
    "Lanes",
    "broadcast",
    "broadcast_int",
    "copy",
    "copy_word",
    "difference_each",
    "even_lanes",
    "every_fourth_from_0",
    "every_fourth_from_1",
    "every_fourth_from_2",
    "floor",
    "fma",
    "fma_each",
    "interleave_high",
    "interleave_low",
    "lane_numbers",
    "left_neighbor",
    "load",
    "load_big_endian",
    "load_broadcast",
    "load_bytes_apart",
    "load_each",
    "load_int",
    "load_mixed",
    "load_quadrupled",
    "load_series",
    "load_short",
    "lowest_bit",
    "mark_nonzero",
    "maximum",
    "minimum",
    "odd_lanes",
    "prefetch",
    "right_neighbor",
    "shift_left",
    "shift_right",
    "sqrt",
    "store",
    "store_bytes",
    "store_half_square",
    "store_int",
    "store_interleaved",
    "store_series",
    "store_short",
    "sum_each",
    "sum_lanes",
    "sum_quarters",
    "to_float",
    "to_int",
    "transpose",
    "where_less",
]

NUM_LANES = 16
"""Lanes of a vector: the width of an AVX-512 register in float32."""

# Types of values inside kernels, which no type checker examines.
Lanes: TypeAlias = Any
IntLanes: TypeAlias = Any

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, NUM_LANES)
_INTS = ir.VectorType(_INT, NUM_LANES)


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


class _IntLanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="IntLanes")


_lanes = _LanesType()
_int_lanes = _IntLanesType()


def _define_model(kind: type[types.Type], representation: ir.Type) -> None:
    class Model(numba.extending.models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, frontend_type: Any) -> None:
            super().__init__(manager, frontend_type, representation)

    numba.extending.register_model(kind)(Model)


def _define_operator(
    operation: Callable[..., Any], kind: type[types.Type], emit: Callable[..., Any]
) -> None:
    class Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: tuple[Any, ...], kws: Any) -> Any:
            if len(args) == 2 and all(isinstance(argument, kind) for argument in args):
                return signature(args[0], *args)
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *args)

    infer_global(operation)(Template)
    numba.extending.lower_builtin(operation, kind, kind)(lower)


_define_model(_LanesType, _FLOATS)
_define_model(_IntLanesType, _INTS)
_define_operator(operator.add, _LanesType, lambda builder, x, y: builder.fadd(x, y))
_define_operator(operator.sub, _LanesType, lambda builder, x, y: builder.fsub(x, y))
_define_operator(operator.mul, _LanesType, lambda builder, x, y: builder.fmul(x, y))
_define_operator(operator.truediv, _LanesType, lambda builder, x, y: builder.fdiv(x, y))
_define_operator(operator.add, _IntLanesType, lambda builder, x, y: builder.add(x, y))
_define_operator(operator.sub, _IntLanesType, lambda builder, x, y: builder.sub(x, y))
_define_operator(operator.mul, _IntLanesType, lambda builder, x, y: builder.mul(x, y))


def _intrinsic(function: Callable[..., Any]) -> Any:
    """`numba.extending.intrinsic`, in a form that the type checker accepts as a decorator."""
    return numba.extending.intrinsic(function)


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, index: Any, pointee: ir.Type
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _shuffle(builder: Any, x: Any, y: Any, lanes: Sequence[int]) -> Any:
    """The lanes with the given numbers in `x` followed by `y`; `y` may be None."""
    second = ir.Constant(x.type, ir.Undefined) if y is None else y
    return builder.shuffle_vector(
        x, second, ir.Constant(ir.VectorType(_INT, len(lanes)), list(lanes))
    )


def _call(builder: Any, name: str, result: ir.Type, *args: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    return _shuffle(builder, first, None, [0] * vector.count)


@_intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """load(array, index): 16 float32 of `array` from `index` on, with any alignment."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(
            _pointer(context, builder, sig.args[0], args[0], args[1], _FLOATS), align=4
        )

    return _lanes(array, types.intp), emit


@_intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """store(array, index, lanes): writes 16 float32 to `array` from `index` on, any alignment."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _pointer(context, builder, sig.args[0], args[0], args[1], _FLOATS)
        builder.store(args[2], target, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), emit


@_intrinsic
def store_int(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """store_int(array, index, int_lanes): writes 16 int32 to `array`, an int32 array."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _pointer(context, builder, sig.args[0], args[0], args[1], _INTS)
        builder.store(args[2], target, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _int_lanes), emit


@_intrinsic
def load_each(typing_context: Any, array: Any, indices: Any) -> Any:
    """load_each(array, indices): a tuple of vectors, one `load` at each index of a tuple."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = []
        for index in cgutils.unpack_tuple(builder, args[1]):
            source = _pointer(context, builder, sig.args[0], args[0], index, _FLOATS)
            lanes.append(builder.load(source, align=4))
        return cgutils.pack_array(builder, lanes)

    return UniTuple(_lanes, len(indices))(array, indices), emit


@numba.extending.intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def load_series(typing_context: Any, array: Any, index: Any, step: Any, count: Any) -> Any:
    """load_series(array, index, step, count): a tuple of `count` (a literal) vectors, one `load`
    every `step` elements."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes, index = [], args[1]
        for _ in range(count.literal_value):
            source = _pointer(context, builder, sig.args[0], args[0], index, _FLOATS)
            lanes.append(builder.load(source, align=4))
            index = builder.add(index, args[2])
        return cgutils.pack_array(builder, lanes)

    result = UniTuple(_lanes, count.literal_value)
    return result(array, types.intp, types.intp, count), emit


@_intrinsic
def store_series(typing_context: Any, array: Any, index: Any, step: Any, values: Any) -> Any:
    """store_series(array, index, step, values): writes a tuple of vectors in the layout that
    `load_series` reads."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        index = args[1]
        for lanes in cgutils.unpack_tuple(builder, args[3]):
            target = _pointer(context, builder, sig.args[0], args[0], index, _FLOATS)
            builder.store(lanes, target, align=4)
            index = builder.add(index, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, values), emit


@_intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """prefetch(array, index): starts to fetch that element into the cache, if it exists."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _pointer(context, builder, sig.args[0], args[0], args[1], ir.IntType(8))
        to_read, to_all_caches, data = _INT(0), _INT(3), _INT(1)
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), address, to_read, to_all_caches, data)
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@_intrinsic
def broadcast(typing_context: Any, value: Any) -> Any:
    """broadcast(float32): the number in every lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], _FLOATS)

    return _lanes(types.float32), emit


@_intrinsic
def broadcast_int(typing_context: Any, value: Any) -> Any:
    """broadcast_int(int32): the number in every lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], _INTS)

    return _int_lanes(types.int32), emit


@_intrinsic
def lane_numbers(typing_context: Any) -> Any:
    """lane_numbers(): 0, 1, ... 15 as float32."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(_FLOATS, [float(lane) for lane in range(NUM_LANES)])

    return _lanes(), emit


@_intrinsic
def fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """fma(x, y, z): x * y + z, rounded once if the processor has this instruction."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.fmuladd.v16f32", _FLOATS, *args)

    return _lanes(_lanes, _lanes, _lanes), emit


def _define_choice(comparison: str) -> Any:
    def choice(typing_context: Any, x: Any, y: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.fcmp_ordered(comparison, args[0], args[1]), *args)

        return _lanes(_lanes, _lanes), emit

    return _intrinsic(choice)


minimum = _define_choice("<")
"""minimum(x, y): the smaller number in each lane; `y` if either is NaN."""
maximum = _define_choice(">")
"""maximum(x, y): the larger number in each lane; `y` if either is NaN."""


def _define_unary(name: str) -> Any:
    def unary(typing_context: Any, x: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call(builder, name, _FLOATS, args[0])

        return _lanes(_lanes), emit

    return _intrinsic(unary)


sqrt = _define_unary("llvm.sqrt.v16f32")
"""sqrt(x): the square root of each lane, correctly rounded."""
floor = _define_unary("llvm.floor.v16f32")
"""floor(x): each lane rounded down, as float32."""


@_intrinsic
def to_int(typing_context: Any, x: Any) -> Any:
    """to_int(lanes): each lane truncated to an int32; undefined beyond its range."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptosi(args[0], _INTS)

    return _int_lanes(_lanes), emit


@_intrinsic
def to_float(typing_context: Any, x: Any) -> Any:
    """to_float(int_lanes): each lane as a float32, rounded to nearest."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sitofp(args[0], _FLOATS)

    return _lanes(_int_lanes), emit


@_intrinsic
def left_neighbor(typing_context: Any, previous: Any, current: Any) -> Any:
    """left_neighbor(previous, current): lane i is lane i - 1 of `current`; lane 0 is the last lane
    of `previous`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _shuffle(builder, args[0], args[1], range(NUM_LANES - 1, 2 * NUM_LANES - 1))

    return _lanes(_lanes, _lanes), emit


@_intrinsic
def right_neighbor(typing_context: Any, current: Any, following: Any) -> Any:
    """right_neighbor(current, following): lane i is lane i + 1 of `current`; lane 15 is the first
    lane of `following`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _shuffle(builder, args[0], args[1], range(1, NUM_LANES + 1))

    return _lanes(_lanes, _lanes), emit


def _define_choice_of_lanes(lanes: Sequence[int]) -> Any:
    def choice(typing_context: Any, x: Any, y: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _shuffle(builder, args[0], args[1], lanes)

        return _lanes(_lanes, _lanes), emit

    return _intrinsic(choice)


even_lanes = _define_choice_of_lanes(range(0, 2 * NUM_LANES, 2))
"""even_lanes(x, y): lanes 0, 2, ... 14 of `x`, then the same lanes of `y`."""
odd_lanes = _define_choice_of_lanes(range(1, 2 * NUM_LANES, 2))
"""odd_lanes(x, y): lanes 1, 3, ... 15 of `x`, then the same lanes of `y`."""
interleave_low = _define_choice_of_lanes(
    [lane + side * NUM_LANES for lane in range(NUM_LANES // 2) for side in (0, 1)]
)
"""interleave_low(x, y): lanes 0 to 7 of `x` and `y` alternately. This is the first of the two
vectors whose `even_lanes` and `odd_lanes` are `x` and `y`."""
interleave_high = _define_choice_of_lanes(
    [lane + side * NUM_LANES for lane in range(NUM_LANES // 2, NUM_LANES) for side in (0, 1)]
)
"""interleave_high(x, y): lanes 8 to 15 of `x` and `y` alternately: the second of these vectors."""


@_intrinsic
def sum_lanes(typing_context: Any, x: Any) -> Any:
    """sum_lanes(lanes): the sum of the 16 lanes as float32, halves added to halves."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total, width = args[0], NUM_LANES
        while width > 1:
            width //= 2
            low = _shuffle(builder, total, None, range(width))
            total = builder.fadd(low, _shuffle(builder, total, None, range(width, 2 * width)))
        return builder.extract_element(total, ir.Constant(_INT, 0))

    return types.float32(_lanes), emit


@_intrinsic
def load_broadcast(typing_context: Any, array: Any, index: Any) -> Any:
    """load_broadcast(array, index): the float32 at `index` in every lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = _pointer(context, builder, sig.args[0], args[0], args[1], _FLOAT)
        return _splat(builder, builder.load(source, align=4), _FLOATS)

    return _lanes(array, types.intp), emit


@_intrinsic
def load_quadrupled(typing_context: Any, array: Any, index: Any) -> Any:
    """load_quadrupled(array, index): four float32 a, b, c, d as the lanes aaaa bbbb cccc dddd."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        four = ir.VectorType(_FLOAT, 4)
        source = _pointer(context, builder, sig.args[0], args[0], args[1], four)
        lanes = [lane // 4 for lane in range(NUM_LANES)]
        return _shuffle(builder, builder.load(source, align=4), None, lanes)

    return _lanes(array, types.intp), emit


@_intrinsic
def store_interleaved(
    typing_context: Any, array: Any, index: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:
    """store_interleaved(array, index, a, b, c, d): writes the 64 float32 a0 b0 c0 d0 a1 b1 ..."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        ab = _shuffle(builder, args[2], args[3], range(2 * NUM_LANES))
        cd = _shuffle(builder, args[4], args[5], range(2 * NUM_LANES))
        for part in range(4):
            lanes = [
                plane * NUM_LANES + 4 * part + pixel for pixel in range(4) for plane in range(4)
            ]
            offset = ir.Constant(args[1].type, NUM_LANES * part)
            index_of_part = builder.add(args[1], offset)
            target = _pointer(context, builder, sig.args[0], args[0], index_of_part, _FLOATS)
            builder.store(_shuffle(builder, ab, cd, lanes), target, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes, _lanes, _lanes, _lanes), emit


@_intrinsic
def sum_quarters(typing_context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """sum_quarters(a, b, c, d): quarter i of the result is the sum of the four quarters of
    argument i."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def halves_added(x: Any, y: Any, first: Sequence[int], second: Sequence[int]) -> Any:
            return builder.fadd(_shuffle(builder, x, y, first), _shuffle(builder, x, y, second))

        low = [*range(8), *range(16, 24)]
        high = [*range(8, 16), *range(24, 32)]
        ab = halves_added(args[0], args[1], low, high)  # a02 a13 b02 b13, quarter by quarter
        cd = halves_added(args[2], args[3], low, high)
        even = [*range(4), *range(8, 12), *range(16, 20), *range(24, 28)]
        odd = [lane + 4 for lane in even]
        return halves_added(ab, cd, even, odd)

    return _lanes(_lanes, _lanes, _lanes, _lanes), emit


def _define_every_fourth(first: int) -> Any:
    def every_fourth(typing_context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = range(first, 2 * NUM_LANES, 4)
            ab = _shuffle(builder, args[0], args[1], lanes)
            cd = _shuffle(builder, args[2], args[3], lanes)
            return _shuffle(builder, ab, cd, range(NUM_LANES))

        return _lanes(_lanes, _lanes, _lanes, _lanes), emit

    return _intrinsic(every_fourth)


every_fourth_from_0 = _define_every_fourth(0)
"""every_fourth_from_0(a, b, c, d): lanes 0, 4, 8, ... of the 64 lanes of `a`, `b`, `c` and `d`."""
every_fourth_from_1 = _define_every_fourth(1)
"""every_fourth_from_1(a, b, c, d): lanes 1, 5, 9, ... of the 64 lanes of `a`, `b`, `c` and `d`."""
every_fourth_from_2 = _define_every_fourth(2)
"""every_fourth_from_2(a, b, c, d): lanes 2, 6, 10, ... of the 64 lanes of `a`, `b`, `c`, `d`."""


@_intrinsic
def copy(typing_context: Any, target: Any, to: Any, source: Any, start: Any, count: Any) -> Any:
    """copy(target, to, source, start, count): copies numbers between arrays that do not overlap."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        written = _pointer(context, builder, sig.args[0], args[0], args[1], byte)
        read = _pointer(context, builder, sig.args[2], args[2], args[3], byte)
        item_size = sig.args[0].dtype.bitwidth // 8
        size = builder.mul(args[4], ir.Constant(args[4].type, item_size))
        cgutils.raw_memcpy(builder, written, read, size, 1)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), emit


@_intrinsic
def where_less(typing_context: Any, x: Any, y: Any, a: Any, b: Any) -> Any:
    """where_less(x, y, a, b): the lanes of `a` where x < y, else those of `b`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return _lanes(_lanes, _lanes, _lanes, _lanes), emit


_square = UniTuple(_lanes, NUM_LANES)


def _define_each(emit_one: Callable[..., Any]) -> Any:
    def each(typing_context: Any, xs: Any, ys: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pairs = zip(*(cgutils.unpack_tuple(builder, series) for series in args), strict=True)
            return cgutils.pack_array(builder, [emit_one(builder, x, y) for x, y in pairs])

        return xs(xs, xs), emit

    return _intrinsic(each)


sum_each = _define_each(lambda builder, x, y: builder.fadd(x, y))
"""sum_each(xs, ys): the sums of corresponding vectors in two tuples."""
difference_each = _define_each(lambda builder, x, y: builder.fsub(x, y))
"""difference_each(xs, ys): the vectors of `xs` minus the corresponding vectors of `ys`."""


@_intrinsic
def fma_each(typing_context: Any, x: Any, ys: Any, zs: Any) -> Any:
    """fma_each(x, ys, zs): fma(x, y, z) of one vector with corresponding vectors of two tuples."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = zip(*(cgutils.unpack_tuple(builder, series) for series in args[1:]), strict=True)
        name = "llvm.fmuladd.v16f32"
        results = [_call(builder, name, _FLOATS, args[0], y, z) for y, z in pairs]
        return cgutils.pack_array(builder, results)

    return ys(_lanes, ys, ys), emit


@_intrinsic
def load_mixed(
    typing_context: Any,
    array: Any,
    positions: Any,
    start: Any,
    stride: Any,
    fractions: Any,
    place: Any,
) -> Any:
    """load_mixed(array, positions, start, stride, fractions, place): 16 interpolated vectors.

    Vector i is a + fractions[place + i] * (b - a). Vector `a` is in `array` at positions[start +
    i], counted in half vectors, and `b` is `stride` numbers after `a`. `positions` is an int32
    array.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, positions, start, stride, fractions, place = args
        array_type, positions_type, _, _, fractions_type, _ = sig.args
        half, vectors = ir.Constant(stride.type, NUM_LANES // 2), []
        for lane in range(NUM_LANES):
            number = ir.Constant(stride.type, lane)
            index = builder.add(start, number)
            position = builder.load(
                _pointer(context, builder, positions_type, positions, index, _INT)
            )
            index = builder.mul(builder.sext(position, stride.type), half)
            a = builder.load(_pointer(context, builder, array_type, array, index, _FLOATS), align=4)
            index = builder.add(index, stride)
            b = builder.load(_pointer(context, builder, array_type, array, index, _FLOATS), align=4)
            index = builder.add(place, number)
            fraction = builder.load(
                _pointer(context, builder, fractions_type, fractions, index, _FLOAT)
            )
            mix = (_splat(builder, fraction, _FLOATS), builder.fsub(b, a), a)
            vectors.append(_call(builder, "llvm.fmuladd.v16f32", _FLOATS, *mix))
        return context.make_tuple(builder, _square, vectors)

    return (
        _square(array, positions, types.intp, types.intp, fractions, types.intp),
        emit,
    )


@_intrinsic
def store_half_square(typing_context: Any, array: Any, index: Any, stride: Any, rows: Any) -> Any:
    """store_half_square(array, index, stride, rows): `store_series` of only lanes 0 to 7."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        half, place = ir.VectorType(_FLOAT, NUM_LANES // 2), args[1]
        for vector in cgutils.unpack_tuple(builder, args[3], NUM_LANES):
            target = _pointer(context, builder, sig.args[0], args[0], place, half)
            builder.store(_shuffle(builder, vector, None, range(half.count)), target, align=4)
            place = builder.add(place, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, _square), emit


@_intrinsic
def transpose(typing_context: Any, rows: Any) -> Any:
    """transpose(rows): lane i of vector j becomes lane j of vector i, for a tuple of 16 vectors.

    Unused results cost nothing: if you need only some columns, ignore the others.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def merge(x: Any, y: Any, lanes: Sequence[int]) -> Any:
            return _shuffle(builder, x, y, lanes)

        # First squares of 4 numbers within the quarters of vectors, then a square of 4 quarters:
        # every step is one cheap instruction.
        quarters = range(0, NUM_LANES, 4)
        first_two, last_two = (
            [quarter + lane + side for quarter in quarters for lane in lanes for side in (0, 16)]
            for lanes in ((0, 1), (2, 3))
        )
        first_pair, last_pair = (
            [quarter + lane + side for quarter in quarters for side in (0, 16) for lane in lanes]
            for lanes in ((0, 1), (2, 3))
        )
        even, odd = (
            [side + 4 * quarter + lane for side in (0, 16) for quarter in pair for lane in range(4)]
            for pair in ((0, 2), (1, 3))
        )
        rows = cgutils.unpack_tuple(builder, args[0], NUM_LANES)
        parts: list[list[Any]] = [[], [], [], []]
        for i in quarters:
            ab, cd = (merge(rows[k], rows[k + 1], first_two) for k in (i, i + 2))
            parts[0].append(merge(ab, cd, first_pair))
            parts[1].append(merge(ab, cd, last_pair))
            ab, cd = (merge(rows[k], rows[k + 1], last_two) for k in (i, i + 2))
            parts[2].append(merge(ab, cd, first_pair))
            parts[3].append(merge(ab, cd, last_pair))
        vectors = [None] * NUM_LANES
        for column, (a, b, c, d) in enumerate(parts):
            for offset, half in ((0, even), (4, odd)):
                ab, cd = merge(a, b, half), merge(c, d, half)
                vectors[column + offset] = merge(ab, cd, even)
                vectors[column + offset + 8] = merge(ab, cd, odd)
        return context.make_tuple(builder, _square, vectors)

    return _square(_square), emit


# ---- integers, for decoding JPEG files

_WORD = ir.IntType(64)
_BYTE = ir.IntType(8)
_SHORTS = ir.VectorType(ir.IntType(16), NUM_LANES)


@_intrinsic
def load_int(typing_context: Any, array: Any, index: Any) -> Any:
    """load_int(array, index): 16 int32 of an int32 array, from `index` on."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = _pointer(context, builder, sig.args[0], args[0], args[1], _INTS)
        return builder.load(source, align=4)

    return _int_lanes(array, types.intp), emit


@_intrinsic
def load_short(typing_context: Any, array: Any, index: Any) -> Any:
    """load_short(array, index): 16 numbers of an int16 array, from `index` on, as int32."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = _pointer(context, builder, sig.args[0], args[0], args[1], _SHORTS)
        return builder.sext(builder.load(source, align=2), _INTS)

    return _int_lanes(array, types.intp), emit


def _define_shift(name: str) -> Any:
    def operation(typing_context: Any, x: Any, count: Any) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, name)(args[0], _splat(builder, args[1], _INTS))

        return _int_lanes(_int_lanes, types.int32), emit

    return _intrinsic(operation)


shift_left = _define_shift("shl")
"""shift_left(int_lanes, int32): each lane times 2 to the power of the number."""
shift_right = _define_shift("ashr")
"""shift_right(int_lanes, int32): each lane divided by 2 to the power of the number, floored."""


@_intrinsic
def store_bytes(typing_context: Any, array: Any, index: Any, values: Any) -> Any:
    """store_bytes(array, index, (a, b, c, d, e, f, g, h)): writes 128 uint8, a0 b0 ... h0 a1 b1 ...

    Values below 0 become 0, and values above 255 become 255.
    """

    def interleaved(builder: Any, x: Any, y: Any) -> Any:
        count = x.type.count
        pairs = zip(range(count), range(count, 2 * count), strict=True)
        return _shuffle(builder, x, y, [lane for pair in pairs for lane in pair])

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        least, most = (ir.Constant(_INTS, [value] * NUM_LANES) for value in (0, 255))
        lanes = []
        for value in cgutils.unpack_tuple(builder, args[2]):
            value = builder.select(builder.icmp_signed("<", value, least), least, value)
            value = builder.select(builder.icmp_signed(">", value, most), most, value)
            lanes.append(builder.trunc(value, ir.VectorType(_BYTE, NUM_LANES)))
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [interleaved(builder, lanes[i], lanes[i + half]) for i in range(half)]
        target = _pointer(context, builder, sig.args[0], args[0], args[1], lanes[0].type)
        builder.store(lanes[0], target, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, UniTuple(_int_lanes, 8)), emit


@_intrinsic
def load_big_endian(typing_context: Any, array: Any, index: Any) -> Any:
    """load_big_endian(array, index): 8 bytes of a uint8 array as a uint64, the first byte highest.

    For little-endian processors: numba compiles for only two others.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = _pointer(context, builder, sig.args[0], args[0], args[1], _WORD)
        return _call(builder, "llvm.bswap.i64", _WORD, builder.load(source, align=1))

    return types.uint64(array, types.intp), emit


@_intrinsic
def copy_word(typing_context: Any, target: Any, to: Any, source: Any, start: Any) -> Any:
    """copy_word(target, to, source, start): copies 8 bytes between uint8 arrays; returns them as a
    uint64."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        read = _pointer(context, builder, sig.args[2], args[2], args[3], _WORD)
        written = _pointer(context, builder, sig.args[0], args[0], args[1], _WORD)
        word = builder.load(read, align=1)
        builder.store(word, written, align=1)
        return word

    return types.uint64(target, types.intp, source, types.intp), emit


# ---- integers, for encoding JPEG files


@_intrinsic
def load_bytes_apart(typing_context: Any, array: Any, index: Any) -> Any:
    """load_bytes_apart(array, index): 128 uint8 as (a, b, c, d, e, f, g, h): what `store_bytes`
    writes, as 16 int32 each.

    For little-endian processors, as `load_big_endian`.
    """

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        words = ir.VectorType(_WORD, NUM_LANES)
        source = _pointer(context, builder, sig.args[0], args[0], args[1], words)
        pairs = builder.load(source, align=1)
        half = _splat(builder, ir.Constant(_WORD, 32), words)
        byte = ir.Constant(_INTS, [255] * NUM_LANES)
        lanes = []
        for four in (builder.trunc(pairs, _INTS), builder.trunc(builder.lshr(pairs, half), _INTS)):
            for shift in (0, 8, 16, 24):
                count = ir.Constant(_INTS, [shift] * NUM_LANES)
                lanes.append(builder.and_(builder.lshr(four, count), byte))
        return context.make_tuple(builder, sig.return_type, lanes)

    return UniTuple(_int_lanes, 8)(array, types.intp), emit


@_intrinsic
def store_short(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """store_short(array, index, int_lanes): writes 16 int32 as the int16 that they fit into."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _pointer(context, builder, sig.args[0], args[0], args[1], _SHORTS)
        builder.store(builder.trunc(args[2], _SHORTS), target, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, _int_lanes), emit


@_intrinsic
def mark_nonzero(typing_context: Any, marks: Any, x: Any, bits: Any) -> Any:
    """mark_nonzero(marks, x, int32): `marks` with these bits set in the lanes where x is not 0."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        marks, x, bits = args
        marked = builder.or_(marks, _splat(builder, bits, _INTS))
        is_zero = builder.icmp_signed("==", x, ir.Constant(_INTS, [0] * NUM_LANES))
        return builder.select(is_zero, marks, marked)

    return _int_lanes(_int_lanes, _int_lanes, types.int32), emit


@_intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """lowest_bit(uint64): the number of the lowest bit that is set; 64 if none is."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        exact = ir.Constant(ir.IntType(1), 0)
        return _call(builder, "llvm.cttz.i64", _WORD, args[0], exact)

    return types.uint64(types.uint64), emit
