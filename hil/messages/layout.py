"""Fixed-layout messages: one declaration gives Python packing and the C header.

A message is a frozen dataclass whose fields are annotated with a wire type and a
sentence that names the unit. Fields lie in declaration order, little-endian, without
padding; a layout that C would pad is refused when it is declared.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, TypeVar, get_type_hints


@dataclass(frozen=True)
class WireType:
    """A scalar, or a run of `length` equal scalars, as it lies on the wire."""

    code: str  # struct's letter
    c_name: str
    size: int  # bytes of one scalar
    length: int = 0  # 0: a scalar

    def __getitem__(self, length: int) -> WireType:
        """Return an array of this scalar."""
        return WireType(self.code, self.c_name, self.size, length)


U8 = WireType("B", "uint8_t", 1)
U16 = WireType("H", "uint16_t", 2)
U32 = WireType("I", "uint32_t", 4)
U64 = WireType("Q", "uint64_t", 8)
F32 = WireType("f", "float", 4)


@dataclass(frozen=True)
class Field:
    """One declared field: its name, where it lies, and what it means."""

    name: str
    kind: WireType
    offset: int
    doc: str


class Message:
    """Base of every declared message; `@message(type)` fills the class variables."""

    TYPE: ClassVar[int]
    LAYOUT: ClassVar[tuple[Field, ...]]
    STRUCT: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        """Return the payload bytes."""
        flat: list[Any] = []
        for field in self.LAYOUT:
            value = getattr(self, field.name)
            flat.extend(value) if field.kind.length else flat.append(value)
        return self.STRUCT.pack(*flat)

    @classmethod
    def unpack(cls, payload: bytes) -> Self:
        """Return the message in `payload`; raises `struct.error` on a wrong length."""
        flat = cls.STRUCT.unpack(payload)
        values: list[Any] = []
        at = 0
        for field in cls.LAYOUT:
            if field.kind.length:
                values.append(flat[at : at + field.kind.length])
                at += field.kind.length
            else:
                values.append(flat[at])
                at += 1
        return cls(*values)


M = TypeVar("M", bound=Message)


def message(type_id: int) -> Callable[[type[M]], type[M]]:
    """Declare a frozen dataclass as message `type_id` of the wire.

    Raises TypeError when the layout would be padded by a C compiler.
    """

    def declare(cls: type[M]) -> type[M]:
        layout: list[Field] = []
        offset, widest = 0, 1
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):  # type: ignore[arg-type]
            kind, doc = hints[field.name].__metadata__
            if offset % kind.size:
                raise TypeError(
                    f"{cls.__name__}.{field.name}: offset {offset} is not a multiple of "
                    f"{kind.size}, C would pad it; reorder the fields"
                )
            layout.append(Field(field.name, kind, offset, doc))
            offset += kind.size * max(kind.length, 1)
            widest = max(widest, kind.size)
        if offset % widest:
            raise TypeError(
                f"{cls.__name__}: {offset} bytes is not a multiple of {widest}, C would pad "
                "the end; add a reserved field"
            )
        cls.TYPE = type_id
        cls.LAYOUT = tuple(layout)
        cls.STRUCT = struct.Struct(
            "<" + "".join(f"{f.kind.length or ''}{f.kind.code}" for f in layout)
        )
        return cls

    return declare


def declaration(messages: Iterable[type[Message]]) -> str:
    """Return the canonical text of a set of messages: what both ends must share."""
    return "".join(
        f"{cls.TYPE:#04x} {cls.__name__}\n"
        + "".join(f"  {f.kind.c_name} {f.name} {f.kind.length}\n" for f in cls.LAYOUT)
        for cls in messages
    )


def schema_crc(messages: Iterable[type[Message]]) -> int:
    """Return the CRC-32 of the canonical text, exchanged in the INFO handshake."""
    return zlib.crc32(declaration(messages).encode())


def snake(name: str) -> str:
    """Return `PlantSense` as `plant_sense`."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def c_header(messages: Iterable[type[Message]], constants: dict[str, int]) -> str:
    """Return the text of `firmware/generated/wire.h`.

    constants: names and values of the enumerations both ends share.
    """
    messages = list(messages)
    lines = [
        "/* Generated from hil/messages/wire.py by `make gen`. Never edited by hand. */",
        "#ifndef HIL_WIRE_H",
        "#define HIL_WIRE_H",
        "",
        "#include <assert.h>",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f"#define WIRE_SCHEMA_CRC {schema_crc(messages):#010x}u",
        f"#define WIRE_PAYLOAD_MAX {max(cls.STRUCT.size for cls in messages)}u",
        "",
    ]
    lines += [f"#define WIRE_{name} {value}u" for name, value in constants.items()]
    for cls in messages:
        name = "wire_" + snake(cls.__name__)
        lines += ["", f"/* {(cls.__doc__ or '').strip().splitlines()[0]} */"]
        lines += [f"#define {name.upper()} {cls.TYPE:#04x}u", "typedef struct {"]
        for f in cls.LAYOUT:
            size = f"[{f.kind.length}]" if f.kind.length else ""
            lines.append(f"    {f.kind.c_name} {f.name}{size}; /* {f.doc} */")
        lines += [f"}} {name}_t;"]
        lines += [f'static_assert(sizeof({name}_t) == {cls.STRUCT.size}, "{name}_t");']
    return "\n".join([*lines, "", "#endif", ""])
