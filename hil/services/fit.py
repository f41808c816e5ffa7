"""A model from recordings: poses and inputs of runs in, a stored model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from hil.config import Config, build
from hil.errors import ConfigError, InputError
from hil.models.store import save
from hil.recording.reader import read_as
from hil.recording.run import RESULTS, Run
from hil.services.control import ControlRecord
from hil.training.fit import Fit, FitProgress, Motion
from hil.training.fit_mechanical import FitMechanical
from hil.training.fit_symo import FitSymo

SHORTEST = 64  # samples between two gaps that are worth a motion


class FitOutcome(msgspec.Struct, frozen=True):
    """What a fit ended with: the JSON line of `hil fit`."""

    model: str
    epochs: int
    validation_loss: float
    residual_rms: list[float]  # (nq,), of what the fit compares, SI
    disagreement: list[float]  # (nq,), η′
    reconstruction: list[float] | None  # (nq,), η_z of labels
    origin_by_state: list[list[float]]  # (nq, nx), ∂q̈/∂x at the origin
    origin_by_input: list[list[float]]  # (nq, nu), ∂q̈/∂u at the origin
    data_seconds: float
    motions: int
    cpu_seconds: float
    run: str


def fit(
    config: Config, recordings: Sequence[Path], runs: Path, say: Callable[[str], None]
) -> FitOutcome:
    """Fit the model a configuration describes to the recordings of runs.

    Raises ConfigError, InputError where the recordings hold nothing to fit.
    """
    if config.fit is None:
        raise ConfigError("fit: missing; `hil fit` needs a [fit]")
    fitter = build(config.fit, "fit", seed=config.seed)
    if not isinstance(fitter, (Fit, FitMechanical, FitSymo)):
        raise ConfigError(f"fit.kind: {config.fit['kind']!r} does not fit models")
    motions = [motion for path in recordings for motion in motions_of(path)]
    seconds = sum(len(m.q) * m.period for m in motions)
    if not motions:
        raise InputError("fit: the recordings hold no uninterrupted motion; collect again")
    say(f"fit: {len(motions)} motions, {seconds:.1f} s")
    run = Run.create(runs, config.name, datetime.now())
    run.write_config(config)

    def progress(now: FitProgress) -> None:
        say(
            f"epoch {now.epoch}/{now.epochs}: train {now.train_loss:.4g}, validation "
            f"{now.validation_loss:.4g}, {now.seconds:.1f} s CPU"
        )

    found = fitter.run(motions, progress)
    sources = {"recordings": [str(path) for path in recordings]}
    path = save(found.model, run.path, found.metadata | sources)
    origin = found.model.linearise(np.zeros(found.model.nx), np.zeros(found.model.nu))
    outcome = FitOutcome(
        model=str(path),
        epochs=found.epochs,
        validation_loss=found.validation_loss,
        residual_rms=found.residual_rms.tolist(),
        disagreement=found.disagreement.tolist(),
        reconstruction=None if found.reconstruction is None else found.reconstruction.tolist(),
        origin_by_state=origin.by_state.tolist(),
        origin_by_input=origin.by_input.tolist(),
        data_seconds=seconds,
        motions=len(motions),
        cpu_seconds=round(found.cpu_seconds, 3),
        run=str(run.path),
    )
    run.write_json(RESULTS, outcome)
    return outcome


def motions_of(path: Path) -> list[Motion]:
    """Return the uninterrupted stretches of a run's recordings, by its own device times.

    A run whose estimator counts with a delay tells the fit of it.

    Raises InputError where it is no run of a moving rig.
    """
    run = Run.open(path)
    motions: list[Motion] = []
    delay = _delay(path)
    for part in run.parts():
        steps = [record for _, record in read_as(part, "step", ControlRecord)]
        if len(steps) < SHORTEST:
            continue
        device_us = np.array([step.device_us for step in steps])
        gaps = np.diff(device_us)
        period_us = int(np.median(gaps))
        edges = np.flatnonzero(np.abs(gaps - period_us) > 0.01 * period_us) + 1
        for stretch in np.split(np.arange(len(steps)), edges):
            if len(stretch) >= SHORTEST:
                q = np.array([steps[i].y for i in stretch])
                u = np.array([steps[i].u for i in stretch])
                motions.append(Motion(period_us * 1e-6, q, u, delay))
    return motions


def _delay(path: Path) -> float | None:
    """Return the latency a run's estimator counted with, s; None where it counted with none."""
    config = Run.open(path).read_config()
    estimator = config.estimator or {}
    return float(estimator.get("delay", 0) * config.rig["period"]) or None


def summary(outcome: FitOutcome) -> str:
    """Return a result as lines for a person."""
    slopes = np.array(outcome.origin_by_state), np.array(outcome.origin_by_input)
    return "\n".join(
        [
            f"model      {outcome.model}",
            f"data       {outcome.motions} motions, {outcome.data_seconds:.1f} s",
            f"fit        {outcome.epochs} epochs, {outcome.cpu_seconds:.1f} s CPU, residual rms "
            + ", ".join(f"{value:.3g}" for value in outcome.residual_rms),
            *(
                f"at 0       ∂q̈{i + 1}/∂x "
                + " ".join(f"{v:9.3f}" for v in slopes[0][i])
                + "   ∂u "
                + " ".join(f"{v:9.3f}" for v in slopes[1][i])
                for i in range(len(slopes[0]))
            ),
            f"run        {outcome.run}",
        ]
    )
