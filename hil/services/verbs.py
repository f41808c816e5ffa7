"""The verbs as a sweep: train, control, collect or fit at every point of some axes."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from hil.config import Config, Settings, Table, environment, load, settings_of
from hil.errors import ConfigError
from hil.plots.sweep import draw_sweep
from hil.services import control, fit
from hil.services.trainer import trainer
from hil.sweep.base import AbstractJob, Done, Ending, Figures, Point, Say, flat

Verb = Literal["train", "control", "collect", "fit"]
SEED = "seed"  # the axis a spread is taken over
# Checked before the first point starts; what they do to each other shows at their point.
PARTS = (
    "rig", "board", "task", "training", "model", "estimator", "control", "excitation", "fit",
)  # fmt: skip
SPAN = re.compile(r"(\d+)\.\.(\d+)")
# What a verb ends with that tells when, where or how fast, not what.
MEASURED = frozenset({
    "seconds", "cpu_seconds", "run", "plots", "model", "rate", "hops", "realtime",
    "solve_us_p50", "solve_us_p99", "round_trip_us_p50", "round_trip_us_p99",
})  # fmt: skip


class VerbsSettings(Settings, frozen=True, kw_only=True):
    """Which verb, on which configurations, along which axes."""

    verb: Verb
    configs: Annotated[list[str], Meta(min_length=1, description="files; an axis if several")]
    axes: Annotated[
        Table, Meta(description='key.path → list of values, or "0..9" for whole numbers')
    ] = msgspec.field(default_factory=dict)
    sim: Annotated[bool, Meta(description="simulate the far end of the wire")] = False
    recordings: Annotated[tuple[str, ...], Meta(description="runs that `fit` learns from")] = ()
    metric: Annotated[str, Meta(description="the figure that is drawn, by its dotted name")]


class VerbWork(Settings, frozen=True, kw_only=True):
    """One point: a verb and the configuration it is given."""

    verb: Verb
    config: Config
    recordings: tuple[str, ...] = ()


class Verbs(AbstractJob):
    """The job: a verb at every point of the product of the axes."""

    Settings: ClassVar[type[VerbsSettings]] = VerbsSettings

    def __init__(self, settings: VerbsSettings, *, config: Config) -> None:
        self.settings = settings
        self.axes = {key: _values(key, axis) for key, axis in flat(settings.axes).items()}
        if len(settings.configs) > 1:
            self.axes = {"config": settings.configs} | self.axes
        if settings.verb == "fit" and not settings.recordings:
            raise ConfigError("sweep.recordings: missing; `fit` learns from the runs they name")

    def points(self) -> list[Point]:
        """Return the product of the axes, the last one changing fastest."""
        return [
            self._point(dict(zip(self.axes, values, strict=True)))
            for values in itertools.product(*self.axes.values())
        ]

    def _point(self, place: Table) -> Point:
        overrides = dict(place)
        file = overrides.pop("config", self.settings.configs[0])
        config = load(file, sim=self.settings.sim, overrides=overrides, environ=environment())
        if config.rig and config.board is None and self.settings.verb != "fit":
            raise ConfigError(
                f"{file}: rig: there is one of it, and points are done side by side; set "
                "sweep.sim = true"
            )
        for where in PARTS:
            if table := getattr(config, where):
                settings_of(table, where)
        work = VerbWork(verb=self.settings.verb, config=config, recordings=self.settings.recordings)
        shown = {key: _shown(key, value) for key, value in place.items()}
        text = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in shown.items())
        label = re.sub(r"[^\w.,=-]+", "_", text)[:60] or "point"
        return Point(label=label, settings=shown, work=msgspec.to_builtins(work))

    @staticmethod
    def run(work: Table, directory: Path, say: Say) -> Figures:
        """Do the verb in the point's directory; see the base."""
        told = msgspec.convert(work, VerbWork)
        outcome = _verb(told)(told.config, directory, say)
        figures: Figures = msgspec.to_builtins(outcome)
        return {key: value for key, value in figures.items() if key not in MEASURED}

    def finish(self, path: Path, done: Sequence[Done]) -> Ending:
        """Return the metric's spread over the seeds of every setting, and draw it."""
        metric = self.settings.metric
        found = [(one.point.settings, _numbers(one.result.figures).get(metric)) for one in done]
        values = [(place, value) for place, value in found if value is not None]
        if not values:
            known = ", ".join(sorted(_numbers(done[0].result.figures))) if done else "none"
            return Ending(lines=[f"no point has a figure {metric!r}; known: {known}"])
        told_apart = [key for key, axis in self.axes.items() if key != SEED and len(axis) > 1]
        axis, *others = told_apart or [SEED]
        groups: dict[str, list[float]] = {}
        curves: dict[str, dict[str, list[float]]] = {}
        for place, value in values:
            groups.setdefault(_label(place, told_apart), []).append(value)
            curve = curves.setdefault(_label(place, others), {})
            curve.setdefault(str(place.get(axis, "")), []).append(value)
        spreads = {label: _spread(some) for label, some in groups.items()}
        picture = path / "plots" / "sweep.png"
        title = f"{self.settings.verb}, {len(values)} points"
        draw_sweep(curves, picture, axis=axis, metric=metric, title=title)
        return Ending(
            figures={"metric": metric, "groups": spreads},
            lines=[
                f"{metric}  {label or 'all'}: median {s['median']:.4g}, {s['low']:.4g} to "
                f"{s['high']:.4g}, {s['points']} points"
                for label, s in spreads.items()
            ],
            plots=[str(picture)],
        )


def _verb(work: VerbWork) -> Callable[[Config, Path, Say], msgspec.Struct]:
    """Return what a verb does with a configuration, a place for runs and a listener."""
    match work.verb:
        case "control" | "collect":
            excite = work.verb == "collect"
            return lambda config, runs, say: control.control(config, runs, say, excite=excite)
        case "fit":
            recordings = [Path(name) for name in work.recordings]
            return lambda config, runs, say: fit.fit(config, recordings, runs, say)
    learn: Callable[[Config, Path, Say], msgspec.Struct] = trainer(work.config).train
    return learn


def _values(key: str, axis: Any) -> list[Any]:
    """Return the values of an axis; raises ConfigError."""
    if isinstance(axis, str) and (span := SPAN.fullmatch(axis)):
        axis = list(range(int(span[1]), int(span[2]) + 1))
    if not isinstance(axis, list) or not axis:
        raise ConfigError(f'sweep.axes.{key}: expected values, as in [1, 2] or "0..9"')
    return axis


def _shown(key: str, value: Any) -> Any:
    """Return a value as a table shows it: a file by its name, what is nested as JSON."""
    if key == "config":
        return Path(value).stem
    return value if not isinstance(value, (dict, list)) else msgspec.json.encode(value).decode()


def _label(place: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {place[key]}" for key in keys)


def _numbers(figures: Figures) -> dict[str, float]:
    """Return every number of nested figures by its dotted name."""
    return {
        key: float(value)
        for key, value in flat(figures).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "points": len(values),
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "standard_deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
        "low": min(values),
        "high": max(values),
    }
