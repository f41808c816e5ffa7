"""Parameters of a system: a frozen Struct whose ranges hold."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import numpy as np

from hil.errors import MechanicsError


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the parameters of a system, in SI; every field carries its range and unit."""


P = TypeVar("P", bound=msgspec.Struct)


def checked(parameters: P, name: str) -> P:
    """Return the parameters of the system `name`.

    Raises MechanicsError naming the one that is out of range or not finite.
    """
    try:
        # Ranges are looked at in conversion only, not when a Struct is made by hand.
        plain = msgspec.to_builtins(parameters, enc_hook=float)  # NumPy's numbers, too
        found = msgspec.convert(plain, type(parameters))
    except (msgspec.ValidationError, TypeError) as error:
        raise MechanicsError(f"{name}: {error}") from None
    for field in found.__struct_fields__:
        value = getattr(found, field)
        if value is not None and not np.isfinite(value).all():
            raise MechanicsError(f"{name}: `{field}` must be finite, found {value}")
    return found
