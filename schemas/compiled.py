"""Encoder and range check of a record as generated Python, as dataclasses generate `__init__`.

fastavro's compiled writer looks for the type of every value and every branch of a union; here both
are decided once, from the record's fields, and encoding takes a third of the time. fastavro is the
oracle in the tests: the same bytes. Decoding gains nothing by it (measured), so fastavro decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from struct import Struct
from typing import Any, Final

from routekeel.schemas.fields import REQUIRED, Field, Record
from routekeel.schemas.kinds import Enum, Kind, Matrix, Nested, Scalar, Sequence
from routekeel.schemas.kinds import Mapping as MapKind
from routekeel.schemas.varint import INT_MAX, INTS, LONGS

Encode = Callable[[Mapping[str, Any], bytes], bytes]
LISTS_KEPT_MAX: Final = 1024


def encode_list(items: Any, encode: Callable[[Any], bytes]) -> bytes:
    """An Avro array or map as one block."""
    parts = [encode(item) for item in items]
    return b"".join((LONGS[len(parts)], *parts, b"\0")) if parts else b"\0"


@lru_cache(maxsize=LISTS_KEPT_MAX)
def encode_ints(items: tuple[int, ...]) -> bytes:
    """An array of ints; the same few lists of layers come again and again."""
    return encode_list(items, INTS.__getitem__)


_F32, _F64 = Struct("<f"), Struct("<d")
_RUNTIME: Final[dict[str, Any]] = {
    "BOOLEANS": {False: b"\0", True: b"\1"},
    "INTS": INTS,
    "LONGS": LONGS,
    "size": bytes.__len__,
    "join": b"".join,
    "f32": _F32.pack,
    "f64": _F64.pack,
    "encode_list": encode_list,
    "encode_ints": encode_ints,
}


class _Source:
    """Lines of a function under construction, and the objects that they refer to by name."""

    def __init__(self, head: str) -> None:
        self.lines = [head]
        self.names = dict(_RUNTIME)

    def add(self, *lines: str, indent: int = 1) -> None:
        self.lines.extend("    " * indent + line for line in lines)

    def name(self, value: Any) -> str:
        """A name in the function for an object of the generator's."""
        name = f"K{len(self.names)}"
        self.names[name] = value
        return name

    def function(self, name: str) -> Any:
        exec("\n".join(self.lines), self.names)
        return self.names[name]


@cache
def encoder(holder: Record | Nested) -> Encode:
    """`encode(value, header) -> bytes` of one record.

    Raises, for a value that is not what the schema says, whatever that leads to (KeyError,
    TypeError, AttributeError, OverflowError, struct.error): the codec gives it its one class.
    """
    source = _Source("def encode(v, header):")
    parts = ["header"]
    for field in holder.fields:
        source.add(f"x = {_get(source, field)}")
        expressions = _encode(source, field.kind)
        if field.nullable:
            part = f"p{len(parts)}"
            source.add(
                f"{part} = b'\\0' if x is None else join((b'\\2', {', '.join(expressions)}))"
            )
            parts.append(part)
            continue
        for expression in expressions:
            part = "x" if expression == "x" else expression
            source.add(f"p{len(parts)} = {part}")
            parts.append(f"p{len(parts)}")
    source.add(f"return join(({', '.join(parts)},))")
    function: Encode = source.function("encode")
    return function


def encode_field(field: Field, value: Any) -> bytes:
    """One field's value as its record's encoder writes it."""
    return encoder(_alone(field))({field.name: value}, b"")


@cache
def _alone(field: Field) -> Nested:
    """One per declared field: records are compared by identity, and every new one would be compiled anew."""
    return Nested(field.name, (field,))


def _get(source: _Source, field: Field) -> str:
    if field.nullable:
        return f"v.get({field.name!r})"
    if field.default is REQUIRED:
        return f"v[{field.name!r}]"
    return f"v.get({field.name!r}, {source.name(field.default)})"


def _encode(source: _Source, kind: Kind) -> tuple[str, ...]:
    """The expressions whose bytes, one after another, are the encoded `x`."""
    match kind:
        case Matrix() | Scalar(avro="bytes"):
            # bytes.__len__ and not len: an array's length counts elements, and would be written.
            return "LONGS[size(x)]", "x"
        case Scalar(avro="string"):
            return "LONGS[size(e := x.encode())]", "e"
        case Scalar(avro="int"):
            return ("INTS[x]",)
        case Scalar(avro="long"):
            return ("LONGS[x]",)
        case Scalar(avro="boolean"):
            return ("BOOLEANS[x]",)
        case Scalar(avro="float"):
            return ("f32(x)",)
        case Scalar(avro="double"):
            return ("f64(x)",)
        case Enum():
            symbols = {symbol: INTS[index] for index, symbol in enumerate(kind.symbols)}
            return (f"{source.name(symbols)}[x]",)
        case Sequence(item=Scalar(avro="int"), item_nullable=False):
            return ("encode_ints(tuple(x))",)
        case Sequence():
            return (f"encode_list(x, {source.name(_item_encoder(kind.item, kind.item_nullable))})",)
        case MapKind():
            return (f"encode_list(x.items(), {source.name(_encode_pair)})",)
        case Nested():
            return (f"{source.name(encoder(kind))}(x, b'')",)
    raise TypeError(f"no encoding for {kind!r}")


def _encode_pair(pair: tuple[str, str]) -> bytes:
    key, value = pair[0].encode(), pair[1].encode()
    return b"".join((LONGS[len(key)], key, LONGS[len(value)], value))


@cache
def _item_encoder(kind: Scalar, nullable: bool) -> Callable[[Any], bytes]:
    source = _Source("def encode(x):")
    if nullable:
        source.add("if x is None: return b'\\0'")
    expressions = (*(("b'\\2'",) if nullable else ()), *_encode(source, kind))
    source.add(f"return join(({', '.join(expressions)},))")
    function: Callable[[Any], bytes] = source.function("encode")
    return function


@cache
def range_check(holder: Record | Nested) -> Callable[[Mapping[str, Any]], bool]:
    """`fits(value) -> bool`: whether every int of a decoded value has 32 bits.

    fastavro reads an int of any length, which a later encoder or array could only fail on.
    """
    source = _Source("def fits(v):")
    numbers, checks = ["0"], []
    for field in holder.fields:
        item = f"v[{field.name!r}]"
        match field.kind:
            case Scalar(avro="int"):
                numbers.append(f"{item} or 0" if field.nullable else item)
            case Sequence(item=Scalar(avro="int")):
                numbers.append(f"*({item} or ())" if field.nullable else f"*{item}")
            case Nested():
                inner = source.name(range_check(field.kind))
                checks.append(f"({item} is None or {inner}({item}))")
    source.add(f"n = ({', '.join(numbers)},)")
    checks.insert(0, f"max(n) <= {INT_MAX} and min(n) >= {-INT_MAX - 1}")
    source.add(f"return {' and '.join(checks)}")
    function: Callable[[Mapping[str, Any]], bool] = source.function("fits")
    return function
