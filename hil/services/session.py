"""What a training run and a control loop do before they command a rig."""

from __future__ import annotations

from hil.config import Config
from hil.errors import ConfigError
from hil.links.zeromq import Address
from hil.services import owner


def require_mirror(config: Config, address: Address) -> bool:
    """Return whether a mirror serves the rig of a configuration.

    Raises ConfigError where it serves another kind of rig than this run wants.
    """
    report = owner.status(config)
    if report is None:
        return False
    wanted = (config.board is not None, config.clock)
    if (report.simulated, report.clock) != wanted:
        kinds = {True: "a simulated", False: "a real"}
        raise ConfigError(
            f"rig {address.name}: the mirror that serves it (process {report.pid}) has "
            f"{kinds[report.simulated]} rig on the {report.clock} clock, this run wants "
            f"{kinds[wanted[0]]} rig on the {wanted[1]} clock; end that mirror or change this run"
        )
    return True
