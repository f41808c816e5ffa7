"""What the configuration of a control loop describes, put together and checked."""

from __future__ import annotations

from typing import Any

from hil.config import Config, build, check, merge
from hil.control.base import AbstractController, AbstractEstimator
from hil.control.domain_guard import DomainGuard
from hil.control.exchange import ExchangeableController, ExchangeableEstimator
from hil.control.excitation import Excited
from hil.errors import ConfigError
from hil.loop import LoopSettings
from hil.models.base import AbstractDynamics
from hil.models.stored import StoredModel
from hil.tasks.base import AbstractDynamicTask
from hil.training.adapt import Adapter, AdaptSettings

PARTS = ("task", "model", "estimator", "control")


class Exchange:
    """Where an estimator and a controller take the place of those in use."""

    def __init__(self, estimator: AbstractEstimator, controller: AbstractController) -> None:
        self.estimator = ExchangeableEstimator(estimator)
        self.controller = ExchangeableController(controller)

    def take(self, estimator: AbstractEstimator, controller: AbstractController) -> None:
        """Let these two work from the next period on."""
        self.estimator.exchange(estimator)
        self.controller.exchange(controller)


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
        self._config = config
        self.model: AbstractDynamics = build(config.model, "model")
        estimator, controller = self.around(self.model)
        self.estimator: AbstractEstimator = estimator
        self.controller: AbstractController = controller
        self.adapt = _adapt(config, self.model)
        self.exchange = None if self.adapt is None else Exchange(estimator, controller)
        if self.exchange is not None:
            self.estimator, self.controller = self.exchange.estimator, self.exchange.controller
        if excite:
            assert config.excitation is not None
            signal = build(config.excitation, "excitation", seed=config.seed)
            self.controller = Excited(self.controller, signal, period)

    def around(self, model: AbstractDynamics) -> tuple[AbstractEstimator, AbstractController]:
        """Return an estimator and a controller of a model, as configured, of their own."""
        config, period = self._config, self.period_s
        assert config.estimator is not None
        assert config.control is not None
        estimator: AbstractEstimator = _made(config.estimator, "estimator", period, model)
        controller: AbstractController = _made(config.control, "control", period, model)
        if config.fallback is not None and hasattr(model, "domain"):
            fallback: AbstractController = _made(config.fallback, "fallback", period, None)
            controller = DomainGuard(controller, model, fallback)
        return estimator, controller

    def close(self) -> None:
        """Let go of what the model holds: one that is elsewhere has a connection."""
        if hasattr(self.model, "close"):
            self.model.close()

    def reconnect(self) -> None:
        """Let a model that is elsewhere be asked over threads made now."""
        if hasattr(self.model, "reconnect"):
            self.model.reconnect()

    @property
    def periods(self) -> int:
        """How many periods the loop lasts."""
        return round(self.loop.duration / self.period_s)


def _adapt(config: Config, model: AbstractDynamics) -> AdaptSettings | None:
    """Return how the model follows its rig, None where it does not; raises ConfigError."""
    if config.adaptation is None:
        return None
    settings = check(config.adaptation, AdaptSettings, "adaptation")
    Adapter(settings)  # refuses what does not fit
    if not isinstance(model, StoredModel):
        raise ConfigError(
            f"adaptation: model.kind: {(config.model or {}).get('kind')!r} is nothing to move; "
            "it takes hil.models.stored:StoredModel"
        )
    return settings


def _made(table: dict[str, Any], where: str, period: float, model: AbstractDynamics | None) -> Any:
    """Return a part around a model: one of its own (`where.model`), or the one given."""
    rest = dict(table)
    own = rest.pop("model", None if model is not None else {})
    if own is not None:
        model = build(own, f"{where}.model")
    return build(_paced(rest, where, period), where, dynamics=model)


def _paced(table: dict[str, Any], where: str, period: float) -> dict[str, Any]:
    """Return a part's table with the period of the rig as its dt."""
    if table.get("dt", period) != period:
        raise ConfigError(
            f"{where}.dt: {table['dt']} s, the rig's period is {period} s; leave it out"
        )
    return merge({"dt": period}, table)
