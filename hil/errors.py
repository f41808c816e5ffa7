"""Every error `hil` raises, as one tree.

HilError
├── InputError            what was asked cannot be: exit code 2, one line
│   ├── ConfigError       a configuration key, by its path
│   ├── MechanicsError    geometry or physics that has no answer (a zero mode, say)
│   ├── PortError         no such port, or it cannot be opened
│   └── SchemaError       two ends that do not speak the same messages
└── RunError              it was asked rightly and failed: exit code 1, one line
    ├── LinkError         the wire: no port, no answer, unplugged
    ├── StateError        a call out of order in a rig's life
    ├── MeasurementError  what was measured cannot be trusted: a marker is hidden
    ├── SafetyError       the guard said no
    │   ├── LimitError    outside the rig's limits
    │   ├── LeaseError    somebody else commands the rig
    │   └── DeadmanError  the controlling process went silent
    └── FaultError        the rig latched a fault

A message says where, what was asked, what was found, what to do.
"""

from __future__ import annotations


class HilError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(HilError):
    """What was asked cannot be done as asked; nothing was changed."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration value is unknown, of the wrong type or out of range."""


class MechanicsError(InputError):
    """The geometry or the physics has no unique answer."""


class PortError(InputError):
    """The port a configuration names does not exist or cannot be opened."""


class SchemaError(InputError):
    """The two ends of a link were built from different message declarations."""


class RunError(HilError):
    """The request was right and the work failed."""


class LinkError(RunError):
    """The other end of a link is missing, silent or gone."""


class StateError(RunError):
    """A call came out of order in the life of a rig."""


class MeasurementError(RunError):
    """What was measured cannot be trusted and is refused."""


class SafetyError(RunError):
    """The guard refused a command; `code` is the machine-readable reason."""

    code = "refused"


class LimitError(SafetyError):
    """A command lies outside the limits of the rig."""

    code = "limit"


class LeaseError(SafetyError):
    """Another client holds the lease, or this client's lease has expired."""

    code = "lease"


class DeadmanError(SafetyError):
    """The token that keeps the rig powered is missing, stale or expired."""

    code = "deadman"


class FaultError(RunError):
    """The rig latched a fault; it needs an explicit `clear()`."""
