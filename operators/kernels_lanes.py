"""Eight float32 lanes as one numba value, so that the order of every operation is written out.

LLVM compiles a vector of eight to whatever the CPU has (two SSE or NEON registers, one AVX one);
the arithmetic of each lane, and the tree that joins them, stay the same. Nothing is left to the
auto-vectoriser, and no flag allows reassociation or fused multiply-add: equal bits on every CPU.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.extending import lower_builtin, models, register_model
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

from routekeel.operators.compilation import CompiledUnit

LANES = 8
KERNEL = CompiledUnit()
"""Every function that goes into the compiled kernel."""
compiled, inlined, operation = KERNEL.compiled, KERNEL.inlined, KERNEL.operation


class LanesType(types.Type):
    """Numba's type of eight float32 values."""

    def __init__(self) -> None:
        super().__init__(name="float32x8")


lanes = LanesType()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INT_VECTOR = ir.VectorType(ir.IntType(32), LANES)


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """Lanes are one LLVM vector."""

    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


def _splat(builder: Any, value: Any) -> Any:
    vector = ir.VectorType(value.type, LANES)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    mask = ir.Constant(_INT_VECTOR, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)


def _int_constant(value: int) -> Any:
    return ir.Constant(_INT_VECTOR, [value] * LANES)


def _arithmetic(op: Any, instruction: str) -> None:
    """lanes ∘ lanes, lanes ∘ float32 and float32 ∘ lanes."""
    pairs = [(lanes, lanes), (lanes, types.float32), (types.float32, lanes)]

    class Template(ConcreteTemplate):
        cases = [signature(lanes, *pair) for pair in pairs]  # noqa: RUF012

    infer_global(op)(Template)
    for pair in pairs:

        def lower(
            context: Any, builder: Any, sig: Any, args: Any, instruction: str = instruction
        ) -> Any:
            both = [
                value if kind == lanes else _splat(builder, value)
                for kind, value in zip(sig.args, args, strict=True)
            ]
            return getattr(builder, instruction)(*both)

        lower_builtin(op, *pair)(lower)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    pointer = builder.gep(data, [index])
    return builder.bitcast(pointer, _VECTOR.as_pointer())


@operation
def load(typingctx: Any, buffer: Any, start: Any) -> Any:
    """Lanes from float32 buffer[start : start + 8]; the caller guarantees the length."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, sig.args[0], *args), align=4)

    return lanes(buffer, types.intp), codegen


@operation
def store(typingctx: Any, buffer: Any, start: Any, value: Any) -> Any:
    """Writes lanes to float32 buffer[start : start + 8]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _address(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.none(buffer, types.intp, lanes), codegen


@operation
def count_where_greater(typingctx: Any, counts: Any, start: Any, a: Any, b: Any) -> Any:
    """Adds 1 to int32 counts[start : start + 8] where a > b; the caller guarantees the length."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), _INT_VECTOR.as_pointer())
        more = builder.zext(builder.fcmp_ordered(">", args[2], args[3]), _INT_VECTOR)
        builder.store(builder.add(builder.load(pointer, align=4), more), pointer, align=4)
        return context.get_dummy_value()

    return types.none(counts, types.intp, lanes, lanes), codegen


@operation
def splat(typingctx: Any, value: Any) -> Any:
    """All lanes the same float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return lanes(types.float32), codegen


@operation
def first_lane(typingctx: Any, x: Any) -> Any:
    """Lane 0 as a float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], ir.IntType(32)(0))

    return types.float32(lanes), codegen


@operation
def lane_index(typingctx: Any) -> Any:
    """0.0 … 7.0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [float(lane) for lane in range(LANES)])

    return lanes(), codegen


def _select(predicate: str) -> Any:
    """An intrinsic (a, b, x, y) → where(a predicate b, x, y), lane by lane; NaN is false."""

    def choose(typingctx: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(
                builder.fcmp_ordered(predicate, args[0], args[1]), args[2], args[3]
            )

        return lanes(lanes, lanes, lanes, lanes), codegen

    return operation(choose)


where_greater = _select(">")
where_equal = _select("==")


@operation
def sqrt8(typingctx: Any, x: Any) -> Any:
    """Square roots, correctly rounded as IEEE asks."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.sqrt.v8f32")
        return builder.call(function, [args[0]])

    return lanes(lanes), codegen


@operation
def power_of_two_in(typingctx: Any, shifted: Any) -> Any:
    """2^n of `arithmetic.ROUNDER` + n, n in [-127, 127], whose last bits are its exponent bits; -127 gives 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _INT_VECTOR)
        return builder.bitcast(builder.shl(bits, _int_constant(23)), _VECTOR)

    return lanes(lanes), codegen


@operation
def exponent_of(typingctx: Any, x: Any) -> Any:
    """floor(log2 x) of positive normal x, read from the exponent bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.lshr(builder.bitcast(args[0], _INT_VECTOR), _int_constant(23))
        return builder.sitofp(builder.sub(bits, _int_constant(127)), _VECTOR)

    return lanes(lanes), codegen


@operation
def mantissa_of(typingctx: Any, x: Any) -> Any:
    """x / 2^floor(log2 x), in [1, 2)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _INT_VECTOR)
        fraction = builder.and_(bits, _int_constant(0x007FFFFF))
        return builder.bitcast(builder.or_(fraction, _int_constant(0x3F800000)), _VECTOR)

    return lanes(lanes), codegen


def _tree(join: Callable[[Any, Any, Any], Any]) -> Any:
    """An intrinsic that joins lanes as ((0,4),(2,6)) with ((1,5),(3,7)): the fixed tree."""

    def reduce(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = args[0]
            for width in (4, 2, 1):
                low, high = (
                    builder.shuffle_vector(
                        value,
                        value,
                        ir.Constant(
                            ir.VectorType(ir.IntType(32), width), list(range(at, at + width))
                        ),
                    )
                    for at in (0, width)
                )
                value = join(builder, low, high)
            return builder.extract_element(value, ir.IntType(32)(0))

        return types.float32(lanes), codegen

    return operation(reduce)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


sum_lanes = _tree(lambda builder, a, b: builder.fadd(a, b))
max_lanes = _tree(_larger)
