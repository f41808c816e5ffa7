"""The protocol of a calibration on a simulated rig whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import build
from hil.errors import ConfigError
from hil.mechanics.spring_network import SpringNetwork
from hil.messages.wire import Target
from hil.rigs import calibration as kept
from hil.rigs.calibrated import Calibrated
from hil.tasks.iris import Iris, IrisSettings
from hil.training.calibration import (
    ReferenceSettings,
    SpringNetworkCalibration,
    SpringNetworkCalibrationSettings,
    SpringNetworkFound,
    steps_seen,
)
from sim.rigs.spring_network import SimSpringNetwork
from tests.unit.rigs.calibrations import GEOMETRY, record
from tests.unit.sim.rig import shipped

NETWORK = SpringNetwork.from_geometry(GEOMETRY)
FLAWS = {
    "board__plant__imperfections__stiffness_mismatch": 0.05,
    "board__plant__imperfections__sensor_gain": 0.1,
    "board__plant__settling_time": 0.003,
}


def make(seed: int = 0, **over: Any) -> SimSpringNetwork:
    config = shipped(**FLAWS | over)
    assert config.board is not None
    kind = "sim.rigs.spring_network:SimSpringNetwork"
    table = config.rig | {"kind": kind, "plant": config.board["plant"]}
    rig: SimSpringNetwork = build(table, "rig", seed=seed)
    return rig


def how(**changed: Any) -> SpringNetworkCalibration:
    settings: dict[str, Any] = {
        "displacement_range": (0.0006, 0.004), "elongation_range": 0.0015, "cases": 160,
        "levels": 4, "drift_time": 20.0, "step_repeats": 2,
    }  # fmt: skip
    told = SpringNetworkCalibrationSettings(**settings | changed)
    return SpringNetworkCalibration(told, network=NETWORK)


def found_on(rig: SimSpringNetwork, **changed: Any) -> SpringNetworkFound:
    info = rig.configure()
    rig.activate()
    assert rig.plant is not None
    channel = GEOMETRY.dof(10, 1)
    gauge = ReferenceSettings(
        node=11, axis="y", gain=float(rig.plant.gain[channel]), deviation=0.001
    )
    it = how(reference=gauge, **changed)
    batches = list(it.run(rig, info))
    for batch in batches:
        assert np.abs(batch.loads).max() <= info.force_limit
    found = it.find(batches, info, rig.settings.samples)
    rig.deactivate()
    return found


def test_a_calibrated_rig_has_the_exact_gradient_within_a_percent(tmp_path: Path) -> None:
    rig = make()
    before = rig_gradient_error(rig_active(rig))
    found = found_on(make())
    path = tmp_path / "found.json"
    kept.write(record("sim-0", parameters=found.parameters), path)
    quiet = {
        f"board__plant__imperfections__{f}": 0 for f in ("sensor_noise", "adc_bits", "dac_bits")
    }
    inner = make(**quiet)  # what is left is the calibration's own error
    calibrated = Calibrated(inner, NETWORK, str(path))
    calibrated.configure()
    calibrated.activate()
    assert before > 0.1
    assert rig_gradient_error(calibrated, inner) < 0.01


def rig_active(rig: SimSpringNetwork) -> SimSpringNetwork:
    rig.configure()
    rig.activate()
    return rig


def rig_gradient_error(rig: Any, inner: SimSpringNetwork | None = None) -> float:
    """Return the relative L2 error of the in-situ gradient at random stiffness."""
    plant = (inner or rig).plant
    assert plant is not None
    settings = IrisSettings(inputs=(14, 12, 13, 10), outputs=(8, 2, 3), force=0.02)
    task = Iris(settings, geometry=GEOMETRY, seed=0)
    rig.set_stiffness(np.random.default_rng(1).uniform(95.0, 180.0, 28))
    true = plant.true_stiffness(plant.applied(Target.STIFFNESS))
    batch = task.train[:16]
    forward = rig.settle(task.loads(batch))
    wanted = task.adjoint_loads(forward.displacement, batch)
    scale = np.abs(wanted).max(axis=1, keepdims=True) / 0.03  # the largest force is 0.03 N
    found = (rig.settle(wanted / scale).elongation * forward.elongation * scale).mean(0)
    slope = lambda u: -task.adjoint_loads(u, batch)  # noqa: E731
    exact = NETWORK.backpropagate(true, task.loads(batch), slope).gradient
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_noise_settling_drift_and_converters_are_found() -> None:
    rig = make(board__plant__imperfections__drift=0.5)
    found = found_on(rig)
    plant = rig.plant
    assert plant is not None
    i = found.identified
    z = (i.gain - plant.gain) / i.gain_deviation
    assert np.abs(z).max() < 4.5
    full = np.concatenate([np.tile([0.0006, 0.004], 12), np.full(28, 0.0015)])
    noise = found.parameters["noise"]
    assert np.abs((np.array(noise.values) - 0.01 * full) / noise.deviation).max() < 5.0
    drift = plant._drift * 1e6 * full
    assert np.abs((i.drift - drift) / i.drift_deviation).max() < 4.5
    tau = found.parameters["settling_time"]
    assert abs(tau.values - 0.003) < 4 * tau.deviation
    steps = np.array(found.parameters["converter_step"].values)
    np.testing.assert_allclose(steps, full / 2047, rtol=1e-5)
    assert 0.9 < found.figures["chi_square"] < 1.2


def test_steps_are_seen_only_where_there_are_any() -> None:
    random = np.random.default_rng(0)
    smooth = random.normal(0.0, 1e-5, (600, 1))
    stepped = np.rint(random.normal(0.0, 1e-4, (600, 8, 1)) / 3e-6).mean(1) * 3e-6
    ranges = np.full(1, 1e-3)
    assert steps_seen(smooth, ranges, 8)[0] == 0.0
    assert steps_seen(stepped, ranges, 8)[0] == pytest.approx(3e-6, rel=1e-6)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="one for each of 2"):
        how(displacement_range=(1e-3, 1e-3, 1e-3))
    for reference, words in (
        (ReferenceSettings(node=1, axis="x", gain=1.0, deviation=0.1), "node 1 is fixed"),
        (ReferenceSettings(node=2, axis="z", gain=1.0, deviation=0.1), "axis 2 does not exist"),
    ):
        with pytest.raises(ConfigError, match=words):
            how(reference=reference)
