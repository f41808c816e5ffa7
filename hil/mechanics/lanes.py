"""A vector of LANES numbers as one value in compiled code: one row of samples at a time.

A compiler that must prove that arrays do not overlap before it may vectorise a loop gives
up on networks, where rows are found through indices. Here the vectors are written down:
`load` makes a `Lanes` of LANES neighbouring numbers, arithmetic works on it in registers,
`store` puts it back. The processor's own width is LLVM's business.

Sums may be contracted and reordered, NaN and infinity are honoured. By naming `hil.compiled`
this file counts among the sources of what is compiled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils as _cgutils
from numba.core import types
from numba.extending import intrinsic, models, overload, register_model

cgutils: Any = _cgutils  # it has no types
LANES = 16
FLAGS = ("contract", "reassoc", "nsz", "arcp", "afn")


def _compiled(function: Callable[..., Any]) -> Any:
    """Return a function that compiled code can call: it writes the instructions itself."""
    return intrinsic(function)


class LanesType(types.Type):
    """The type of LANES floats of one kind."""

    def __init__(self, scalar: Any) -> None:
        self.scalar = scalar
        super().__init__(name=f"Lanes({scalar}, {LANES})")


LANES_OF = {types.float32: LanesType(types.float32), types.float64: LanesType(types.float64)}


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: LanesType) -> None:
        scalar = ir.FloatType() if kind.scalar == types.float32 else ir.DoubleType()
        super().__init__(  # type: ignore[no-untyped-call]
            manager, kind, ir.VectorType(scalar, LANES)
        )


def _address(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    """Return the address of a row of a contiguous array (rows, LANES) as a vector's."""
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    first = builder.mul(row, ir.Constant(row.type, LANES))
    vector = context.get_value_type(LANES_OF[kind.dtype])
    return builder.bitcast(builder.gep(data, [first]), vector.as_pointer())


@_compiled
def load(_: Any, array: Any, row: Any) -> Any:
    """Return row `row` of an array (rows, LANES)."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], *args)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return LANES_OF[array.dtype](array, types.intp), code


@_compiled
def store(_: Any, array: Any, row: Any, value: Any) -> Any:
    """Put `value` into row `row` of an array (rows, LANES)."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), code


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    one = builder.insert_element(
        ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
    )
    order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)


def _binary(name: str) -> Any:
    """Return an intrinsic for one operation on Lanes and Lanes or numbers."""

    @_compiled
    def operation(_: Any, left: Any, right: Any) -> Any:
        kind = left if isinstance(left, LanesType) else right
        pair = tuple(t if isinstance(t, LanesType) else kind.scalar for t in (left, right))

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = context.get_value_type(kind)
            both = [
                a if isinstance(t, LanesType) else _splat(builder, a, vector)
                for a, t in zip(args, signature.args, strict=True)
            ]
            return getattr(builder, name)(*both, flags=FLAGS)

        return kind(*pair), code

    return operation


_add, _sub, _mul, _div = (_binary(name) for name in ("fadd", "fsub", "fmul", "fdiv"))


def _register(symbol: Any, operation: Any) -> None:
    @overload(symbol)
    def _typed(left, right):  # type: ignore[no-untyped-def]  # numba compares signatures
        if isinstance(left, LanesType) or isinstance(right, LanesType):
            return lambda left, right: operation(left, right)
        return None


for _symbol, _operation in (
    (operator.add, _add), (operator.sub, _sub), (operator.mul, _mul), (operator.truediv, _div),
):  # fmt: skip
    _register(_symbol, _operation)


@_compiled
def root(_: Any, value: Any) -> Any:
    """Return the square root."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = context.get_value_type(value)
        name = f"llvm.sqrt.v{LANES}f{value.scalar.bitwidth}"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector]), name
        )
        return builder.call(function, args, fastmath=FLAGS)

    return value(value), code


@_compiled
def above(_: Any, value: Any, bound: Any) -> Any:
    """Return 1 where `value` is above `bound`, a number, and 0 elsewhere."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = context.get_value_type(value)
        scalar = context.get_value_type(value.scalar)
        more = builder.fcmp_ordered(">", args[0], _splat(builder, args[1], vector))
        one, zero = (ir.Constant(vector, [ir.Constant(scalar, c)] * LANES) for c in (1.0, 0.0))
        return builder.select(more, one, zero)

    return value(value, value.scalar), code


@_compiled
def at_least(_: Any, value: Any, bound: Any) -> Any:
    """Return the larger of `value` and `bound`, a number; NaN stays NaN."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        floor = _splat(builder, args[1], context.get_value_type(value))
        return builder.select(builder.fcmp_ordered("<", args[0], floor), floor, args[0])

    return value(value, value.scalar), code
