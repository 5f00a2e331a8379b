"""Two operations that numba's loops do slowly: copying a block, and eight float16 to float32 at once."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from routekeel.streams.wire.primitives import WIRE

LANES = 8
LINE = 64
"""Bytes that the processor fetches at a time."""
_I16, _I32 = ir.IntType(16), ir.IntType(32)
_HALVES, _WORDS = ir.VectorType(_I16, LANES), ir.VectorType(_I32, LANES)
_BYTE_POINTER = ir.IntType(8).as_pointer()
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


def _all(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * LANES)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@WIRE.operation
def copy_block(typingctx: Any, source: Any, start: Any, size: Any, target: Any, to: Any) -> Any:
    """target[to : to + size] = source[start : start + size], bytes that do not overlap."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        read = _pointer(context, builder, sig.args[0], args[0], args[1])
        written = _pointer(context, builder, sig.args[3], args[3], args[4])
        cgutils.raw_memcpy(builder, written, read, args[2], 1)
        return context.get_dummy_value()

    return types.none(source, types.intp, types.intp, target, types.intp), codegen


@WIRE.operation
def prefetch_block(typingctx: Any, array: Any, start: Any, size: Any) -> Any:
    """Ask the processor for the lines of array[start : start + size], which are read or written soon."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, _I32, _I32, _I32]),
            "llvm.prefetch.p0i8",
        )
        read, near, data = (ir.Constant(_I32, value) for value in (0, 3, 1))
        first = _pointer(context, builder, sig.args[0], args[0], args[1])
        line = ir.Constant(args[2].type, LINE)
        with cgutils.for_range_slice(builder, ir.Constant(args[2].type, 0), args[2], line) as loop:
            builder.call(function, [builder.gep(first, [loop[0]]), read, near, data])
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp), codegen


@WIRE.operation
def unpack_eight(typingctx: Any, source: Any, start: Any, target: Any, to: Any) -> Any:
    """float32 target[to : to + 8] from eight little-endian float16 at a byte of `source`.

    The bits moved to float32's places are the number times 2⁻¹¹², subnormals included; multiplying
    by 2¹¹² is exact. NaN and infinity do not come out as such: the caller has looked for them.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        read = _pointer(context, builder, sig.args[0], args[0], args[1])
        halves = builder.load(builder.bitcast(read, _HALVES.as_pointer()), align=1)
        words = builder.zext(halves, _WORDS)
        rest = builder.shl(builder.and_(words, _all(_WORDS, 0x7FFF)), _all(_WORDS, 13))
        sign = builder.shl(builder.and_(words, _all(_WORDS, 0x8000)), _all(_WORDS, 16))
        small = builder.bitcast(builder.or_(rest, sign), _FLOATS)
        floats = builder.fmul(small, _all(_FLOATS, 2.0**112))
        written = _pointer(context, builder, sig.args[2], args[2], args[3])
        builder.store(floats, builder.bitcast(written, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.none(source, types.intp, target, types.intp), codegen
