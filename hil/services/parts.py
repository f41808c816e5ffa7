"""What the configuration of a control loop describes, put together and checked."""

from __future__ import annotations

from typing import Any

from hil.config import Config, build, check, merge
from hil.control.base import AbstractController, AbstractEstimator
from hil.control.domain_guard import DomainGuard
from hil.control.excitation import Excited
from hil.errors import ConfigError
from hil.loop import LoopSettings
from hil.models.base import AbstractDynamics
from hil.tasks.base import AbstractDynamicTask

PARTS = ("task", "model", "estimator", "control")


class Parts:
    """Task, model, estimator and controller of a loop, made before a device is touched.

    excite: add the configuration's excitation to the controller's input. Raises ConfigError.
    """

    def __init__(self, config: Config, *, excite: bool = False) -> None:
        for name in (*PARTS, "excitation") if excite else PARTS:
            if getattr(config, name) is None:
                raise ConfigError(f"{name}: missing; it needs [{'], ['.join(PARTS)}]")
        assert config.task is not None
        assert config.model is not None
        assert config.estimator is not None
        assert config.control is not None
        self.period_s = period = float(config.rig.get("period", 0.0))
        self.loop = check(config.loop, LoopSettings, "loop")
        self.task: AbstractDynamicTask = build(config.task, "task")
        self.model: AbstractDynamics = build(config.model, "model")
        self.estimator: AbstractEstimator = build(
            _paced(config.estimator, "estimator", period), "estimator", dynamics=self.model
        )
        self.controller: AbstractController = build(
            _paced(config.control, "control", period), "control", dynamics=self.model
        )
        if config.fallback is not None and hasattr(self.model, "domain"):
            self.controller = DomainGuard(
                self.controller, self.model, _fallback(config.fallback, period)
            )
        if excite:
            assert config.excitation is not None
            signal = build(config.excitation, "excitation", seed=config.seed)
            self.controller = Excited(self.controller, signal, period)

    @property
    def periods(self) -> int:
        """How many periods the loop lasts."""
        return round(self.loop.duration / self.period_s)


def _fallback(table: dict[str, Any], period: float) -> AbstractController:
    """Return the controller for outside the model's data, on a model of its own."""
    rest = dict(table)
    model = build(rest.pop("model", {}), "fallback.model")
    made: AbstractController = build(_paced(rest, "fallback", period), "fallback", dynamics=model)
    return made


def _paced(table: dict[str, Any], where: str, period: float) -> dict[str, Any]:
    """Return a part's table with the period of the rig as its dt."""
    if table.get("dt", period) != period:
        raise ConfigError(
            f"{where}.dt: {table['dt']} s, the rig's period is {period} s; leave it out"
        )
    return merge({"dt": period}, table)
