"""Vectors of 16 float32 for numba, so that kernels run at full width on every processor.

LLVM turns each operation into one AVX-512 instruction, two of AVX2 or four of SSE or NEON. Nothing
here lets it reorder arithmetic: a multiplication and an addition are joined only where `fma` says
so, and sums of lanes have one fixed order. So all processors with fused multiply-add give the same
bits, whatever their width.

Operations work on `Lanes` (16 float32) and `IntLanes` (16 int32), which exist inside kernels alone;
`+`, `-`, `*` are defined for both, `/` for `Lanes`. Arrays are flat, indices count elements, and no
index is checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numba.extending
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

__all__ = [
    "NUM_LANES",
    "IntLanes",
    "Lanes",
    "broadcast",
    "broadcast_int",
    "floor",
    "fma",
    "lane_numbers",
    "left_neighbor",
    "load",
    "maximum",
    "minimum",
    "right_neighbor",
    "sqrt",
    "store",
    "store_int",
    "sum_lanes",
    "to_float",
    "to_int",
]

NUM_LANES = 16
"""Lanes of a vector: the width of an AVX-512 register in float32."""

# Types of values inside kernels, where no type checker follows.
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
    """The lanes with the given numbers of `x` and `y` side by side; `y` may be None."""
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
    """load(array, index): the 16 float32 of `array` from `index` on; any alignment."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(
            _pointer(context, builder, sig.args[0], args[0], args[1], _FLOATS), align=4
        )

    return _lanes(array, types.intp), emit


@_intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """store(array, index, lanes): writes 16 float32 to `array` from `index` on; any alignment."""

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
def broadcast(typing_context: Any, value: Any) -> Any:
    """broadcast(float32): that number in every lane."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0], _FLOATS)

    return _lanes(types.float32), emit


@_intrinsic
def broadcast_int(typing_context: Any, value: Any) -> Any:
    """broadcast_int(int32): that number in every lane."""

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
    """fma(x, y, z): x * y + z, rounded once where the processor has that instruction."""

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
"""minimum(x, y): the smaller number of each lane; `y` where either is NaN."""
maximum = _define_choice(">")
"""maximum(x, y): the larger number of each lane; `y` where either is NaN."""


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
    """to_int(lanes): each lane cut to an int32; undefined beyond its range."""

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
    """left_neighbor(previous, current): lane i has lane i - 1 of `current`; lane 0 has the last of
    `previous`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _shuffle(builder, args[0], args[1], range(NUM_LANES - 1, 2 * NUM_LANES - 1))

    return _lanes(_lanes, _lanes), emit


@_intrinsic
def right_neighbor(typing_context: Any, current: Any, following: Any) -> Any:
    """right_neighbor(current, following): lane i has lane i + 1 of `current`; lane 15 has the first
    of `following`."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _shuffle(builder, args[0], args[1], range(1, NUM_LANES + 1))

    return _lanes(_lanes, _lanes), emit


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
