"""Learned dynamics on one system, each let loose from its first state: one trial per model.

A model sees the poses of the training span alone, sampled at a period. Velocities and
accelerations come from them by differences; the true first state begins the rollout. All are
measured alike (`hil.training.rollout`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from hil.config import Settings, Table, build
from hil.errors import ConfigError, RunError
from hil.mechanics.integrate import STEPPERS, adaptive, rk4
from hil.models.base import AbstractDynamics
from hil.models.dictionary import DictionarySettings
from hil.models.fnode import FnodeSettings
from hil.models.linear import LinearModel
from hil.training.differentiation import differences
from hil.training.fit import Motion
from hil.training.fit_dictionary import fit_dictionary
from hil.training.fit_energy import fit_hnn, fit_lnn
from hil.training.flow import SCALES, FlowSettings, Samples, Variant, choose, label, learn
from hil.training.predictors import fcnn, lstm
from hil.training.rollout import RolloutError, rollout, rollout_error
from hil.training.through_integrator import learn_through_integrator
from hil.types import Array

Velocities = Literal["plain", "even", "none"]
SYMPLECTIC = ("leapfrog", "yoshida4", "yoshida6")


class SystemSettings(Settings, frozen=True, kw_only=True):
    """A system, where it begins, and which part of its motion is known."""

    plant: Table
    start: tuple[float, ...]  # positions, then velocities, SI
    train: Annotated[int, msgspec.Meta(ge=30, description="samples that are known")]
    test: Annotated[int, msgspec.Meta(ge=1, description="samples after them")]
    period: Annotated[float, msgspec.Meta(gt=0, description="s")] = 0.01
    angles: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    stepper: str = "rk4"
    steps: Annotated[int, msgspec.Meta(ge=1, description="of the integrator in a period")] = 2
    points: Annotated[int, msgspec.Meta(ge=3, description="of the differences")] = 11
    every: Annotated[int, msgspec.Meta(ge=1, description="of so many labels one is used")] = 1
    iterations: Annotated[int, msgspec.Meta(ge=1, description="of a fit, at most")] = 50
    paper: Mapping[str, float] = {}  # its figures for this system, by model

    def __post_init__(self) -> None:
        """Refuse a stepper that is not there."""
        if self.stepper not in STEPPERS:
            raise ValueError(f"`stepper` {self.stepper!r} is none of {sorted(STEPPERS)}")


@dataclass(frozen=True, eq=False)
class Case:
    """A system as the models meet it."""

    settings: SystemSettings
    plant: Any
    truth: Array  # (train + test, nx)
    motion: Motion  # the training span, poses alone
    samples: Samples  # the same with derivatives by differences
    network: FnodeSettings
    seed: int = 0  # with which a variant is chosen


class Trial(NamedTuple):
    """What one model with one seed came to."""

    error: RolloutError
    drift: float | None  # of energy, over the largest kinetic energy; None if it is not kept
    cpu_seconds: float  # of training, the choice of a variant left out
    updates: int
    about: str  # which variant was chosen, and the like
    states: Array  # (train + test, nx)


def case(settings: SystemSettings, hidden: tuple[int, ...], seed: int = 0) -> Case:
    """Return a system with its true motion; raises ConfigError where they do not fit.

    seed: with which variants are told apart.
    """
    plant = build(settings.plant, "plant")
    x = np.array(settings.start, dtype=np.float64)
    probe = np.zeros((1, len(x) // 2))
    nu = getattr(plant, "nu", 1)
    if len(x) % 2 or plant.acceleration(probe, probe, np.zeros((1, nu))).shape != probe.shape:
        raise ConfigError(f"start: {len(x)} numbers do not fit {type(plant).__name__}")
    times = np.arange(settings.train + settings.test, dtype=np.float64) * settings.period
    truth = adaptive(plant.acceleration, x, np.zeros(nu), times, rtol=1e-12, atol=1e-13)
    q = truth[: settings.train, : len(x) // 2]
    motion = Motion(settings.period, np.ascontiguousarray(q), np.zeros((settings.train, 0)))
    # Leapfrog asks for forces of the position alone: only then is it symplectic.
    velocities: Velocities = "none" if settings.stepper in SYMPLECTIC else "plain"
    network = FnodeSettings(
        nq=len(x) // 2, nu=0, angles=settings.angles, left_out=settings.left_out,
        hidden=hidden, skip=False, velocities=velocities,
    )  # fmt: skip
    samples = label([motion], settings.points, settings.every)
    return Case(settings, plant, truth, motion, samples, network, seed)


class Learned(NamedTuple):
    """What a model is judged by."""

    outcome: AbstractDynamics | Array  # dynamics, or the states themselves
    cpu_seconds: float
    updates: int
    about: str = ""
    separable: bool = True  # no force depends on a velocity: a symplectic step is one


Learner = Callable[[Case, int], Learned]  # of a case and a seed


def _fnode(variants: tuple[Variant, ...], exact: bool = False) -> Learner:
    @lru_cache(maxsize=64)  # one choice for a system, with the first seed
    def chosen(case: Case) -> Variant:
        settings = FlowSettings(
            network=case.network,
            variants=variants,
            points=case.settings.points,
            every=case.settings.every,
            iterations=case.settings.iterations,
        )
        return choose(settings, [case.motion], case.seed)[0].variant

    def learner(case: Case, seed: int) -> Learned:
        best = chosen(case)
        samples = _exact(case) if exact else case.samples
        model, done = learn(
            case.network, best, samples, seed=seed, iterations=case.settings.iterations
        )
        separable = model.settings.velocities == "none"
        return Learned(model, done.cpu_seconds, done.updates, best.words, separable)

    return learner


def _exact(case: Case) -> Samples:
    """Return the training span with its true velocities and accelerations."""
    q, v = np.split(case.truth[: case.settings.train], 2, axis=1)
    a = case.plant.acceleration(q, v, np.zeros((len(q), getattr(case.plant, "nu", 1))))
    every = case.settings.every
    return Samples(q[::every], v[::every], np.zeros((len(q), 0))[::every], a[::every])


def _linear(case: Case, seed: int) -> Learned:
    begin = time.process_time()
    model = LinearModel.fit(*case.samples)
    return Learned(model, time.process_time() - begin, 1)


def _lagrangian(case: Case, seed: int) -> Learned:
    settings = DictionarySettings(nq=case.network.nq, angles=case.settings.angles)
    found = fit_dictionary(settings, case.samples)
    return Learned(found.model, found.cpu_seconds, 1, f"gap {found.gap:.0e}")


def _mbd_node(case: Case, seed: int) -> Learned:
    settings = case.settings
    moved = differences(case.motion.q, settings.period, settings.points)
    model, done = learn_through_integrator(
        case.network, moved.position, moved.velocity, settings.period, seed=seed,
        every=settings.every,
    )  # fmt: skip
    return Learned(model, done.cpu_seconds, done.updates)


def _hnn(case: Case, seed: int) -> Learned:
    q, v, _, a = case.samples
    masses = getattr(case.plant.parameters, "masses", None)
    if masses is None or len(masses) != case.network.nq or case.settings.angles:
        raise RunError("HNN: needs the mass of every coordinate")
    model, done = fit_hnn(q, v, a, np.array(masses), seed=seed)
    return Learned(model, done.cpu_seconds, done.updates, separable=False)


def _lnn(case: Case, seed: int) -> Learned:
    q, v, _, a = case.samples
    model, done = fit_lnn(q, v, a, seed=seed)
    return Learned(model, done.cpu_seconds, done.updates, separable=False)


def _known(case: Case) -> tuple[Array, int]:
    """Return the states that are known, by differences, and how many are asked for."""
    moved = differences(case.motion.q, case.motion.period, case.settings.points)
    return np.concatenate([moved.position, moved.velocity], axis=1), len(case.truth)


def _fcnn(case: Case, seed: int) -> Learned:
    begin = time.process_time()
    found = fcnn(*_known(case), seed=seed, hidden=case.network.hidden, updates=1000)
    return Learned(found.states, time.process_time() - begin, found.updates)


def _lstm(case: Case, seed: int) -> Learned:
    begin = time.process_time()
    found = lstm(*_known(case), seed=seed)
    return Learned(found.states, time.process_time() - begin, found.updates)


RIDGES = (1e-7, 1e-9, 1e-11)
EVEN = tuple(
    Variant(scale=variant.scale, mirror=mirror, velocities="even")
    for mirror in (True, False)
    for variant in SCALES[:3]
)
RIDGED = tuple(Variant(scale=scale, ridge=ridge) for ridge in RIDGES for scale in (0.1, 1.0))
SKIPPED = tuple(Variant(scale=variant.scale, skip=True) for variant in SCALES)
LEARNERS: dict[str, Learner] = {
    "FNODE": _fnode(SCALES),
    "FNODE even": _fnode(EVEN),
    "FNODE ridge": _fnode(RIDGED),
    "FNODE skip": _fnode(SKIPPED),
    "FNODE selected": _fnode((*EVEN, *SKIPPED, *SCALES)),
    "FNODE exact labels": _fnode(SCALES, exact=True),
    "linear": _linear,
    "Lagrangian": _lagrangian,
    "HNN": _hnn,
    "LNN": _lnn,
    "MBD-NODE": _mbd_node,
    "LSTM": _lstm,
    "FCNN": _fcnn,
}
"""By name; the first is the plain network, its input weights chosen from four scales."""

WITHOUT_SEED = ("linear", "Lagrangian")


def trial(case: Case, model: str, seed: int) -> Trial | None:
    """Return how a model does, or None where the data do not determine it."""
    settings = case.settings
    try:
        learned = LEARNERS[model](case, seed)
    except RunError:
        return None
    if isinstance(learned.outcome, AbstractDynamics):
        states = rollout(
            learned.outcome, case.truth[0], np.zeros((len(case.truth) - 1, 0)), settings.period,
            steps=settings.steps, step=STEPPERS[settings.stepper] if learned.separable else rk4,
        )  # fmt: skip
    else:
        states = learned.outcome
    return Trial(
        rollout_error(states, case.truth, settings.train, settings.period),
        _drift(case, states),
        learned.cpu_seconds,
        learned.updates,
        learned.about,
        states,
    )


def _drift(case: Case, states: Array) -> float | None:
    """Return the largest change of energy over the largest kinetic energy of the truth."""
    nq, energy = case.network.nq, case.plant.energy
    q, v = case.truth[:, :nq], case.truth[:, nq:]
    true, kinetic = energy(q, v), energy(q, v) - energy(q, 0 * v)
    if np.ptp(true) > 1e-6 * kinetic.max():
        return None  # the system itself does not keep it
    with np.errstate(all="ignore"):
        found = energy(states[:, :nq], states[:, nq:])
    return float(np.abs(found - true[0]).max() / kinetic.max())
