"""Calibration through the whole stack: measured, kept, applied, refused, fitted, followed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import Config, build, load
from hil.errors import ConfigError, InputError
from hil.mechanics.spring_network import SpringNetwork
from hil.recording.run import Run
from hil.rigs import calibration as kept
from hil.services import foreground, owner
from hil.services.calibrate import FILE, CalibrateOutcome, calibrate
from hil.services.calibrate import summary as told
from hil.services.fit_rig import fit_rig
from hil.services.fit_rig import summary as fit_told
from sim.boards.plant_bus import device_id
from sim.rigs.spring_network_plant import SpringNetworkPlant
from tests.system.rigs import SPRING, client, mirror, spring_config
from tests.unit.rigs.calibrations import GEOMETRY, record

FLAWS: dict[str, Any] = {
    "board__plant__imperfections__stiffness_mismatch": 0.05,
    "board__plant__imperfections__sensor_gain": 0.1,
    "calibration__levels": 3,
    "calibration__cases": 96,
    "calibration__drift_time": 0.0,
    "calibration__step_repeats": 1,
}
NETWORK = SpringNetwork.from_geometry(GEOMETRY)


def played(config: Config) -> SpringNetworkPlant:
    """Return the plant the board of a configuration plays."""
    assert config.board is not None
    plant: SpringNetworkPlant = build(
        config.board["plant"], "board.plant", rig=config.rig, seed=config.seed
    )
    return plant


def device(config: Config) -> str:
    """Return the serial number its firmware tells."""
    assert config.board is not None
    return f"{device_id(config.board['plant'], config.rig, config.seed, config.ideal):016x}"


def test_a_rig_is_calibrated_kept_applied_and_refused(tmp_path: Path) -> None:
    config = spring_config(**FLAWS)
    outcome = calibrate(config, tmp_path, lambda _: None)
    assert outcome.device_id == device(config)
    run = Run.open(outcome.run)
    assert kept.read(run.path / FILE) == kept.read(Path(outcome.calibration))
    assert kept.read(Path(outcome.calibration)).config_hash == kept.digest(config)
    assert all(Path(plot).stat().st_size > 10_000 for plot in outcome.plots)
    assert len(outcome.plots) == 3
    assert outcome.settling_time == pytest.approx(0.001, rel=0.05)
    assert "time constant" in told(outcome)
    _applied(spring_config(**FLAWS, rig__calibration="auto"), tmp_path)
    other = spring_config(**FLAWS, rig__calibration=outcome.calibration, seed=1)
    with pytest.raises(ConfigError, match="is of device") as caught, mirror(other, tmp_path):
        pass
    assert caught.value.exit_code == 2
    _fitted(config, outcome, tmp_path)


def _applied(config: Config, tmp_path: Path) -> None:
    plant = played(config)
    with mirror(config, tmp_path):
        with client(config) as rig:
            info = rig.configure()
            assert info.details["calibration"].startswith(device(config))
            rig.activate()
            asked = np.random.default_rng(0).uniform(95.0, 180.0, 28)
            applied = rig.set_stiffness(asked)
            np.testing.assert_allclose(applied, asked, rtol=1e-3)  # a step of the converter
            loads = np.random.default_rng(1).uniform(-0.01, 0.01, (64, 24))
            measured = rig.settle(loads)
            true = NETWORK.settle(asked, loads)
            gain = (measured.elongation * true.elongation).sum(0) / (true.elongation**2).sum(0)
            assert np.abs(plant.gain[24:] - 1).max() > 0.15
            assert np.abs(gain - 1).max() < 0.08  # a shared scale, and noise
        status = owner.status(config)
        assert status is not None
        assert status.info["details"]["calibration"] in foreground.describe(status)
        with pytest.raises(InputError, match="applies calibration"):
            calibrate(config, tmp_path, lambda _: None)


def _fitted(config: Config, outcome: CalibrateOutcome, tmp_path: Path) -> None:
    """The recording of the calibration is all that is needed to simulate this rig."""
    found = fit_rig(config, SPRING, [Path(outcome.run)], None, tmp_path, lambda _: None)
    assert found.within
    assert abs(found.distance - 1.0) < 0.05
    assert found.distance_ideal > 3.0
    assert "predicted within its noise" in fit_told(found)
    fitted = load(found.config, sim=True)
    assert fitted.board is not None
    assert fitted.board["plant"]["settling_time"] == pytest.approx(0.001, rel=0.05)
    assert fitted.board["plant"]["imperfections"]["adc_bits"] == 12
    truth, twin = played(config), played(fitted)
    shared = np.median(twin.gain / truth.gain)
    assert abs(shared - 1.0) < 4 * found.scale_deviation
    np.testing.assert_allclose(twin.gain, truth.gain * shared, rtol=0.03)
    k = np.full(28, 150.0)
    np.testing.assert_allclose(twin.true_stiffness(k), truth.true_stiffness(k), rtol=0.05)
    scatter = np.std([twin.sample(1000 * i) - truth.sample(1000 * i) for i in range(200)], axis=0)
    assert (scatter / truth._full_scale < 0.02).all()


def test_a_training_run_tells_of_its_rig_too(tmp_path: Path) -> None:
    from hil.services.train import train

    over: dict[str, Any] = {
        "training.epochs": 2,
        "training.evaluate_every": 0,
        "training.check.every": 0,
    }
    flaws = {k.replace("__", "."): v for k, v in FLAWS.items()}
    iris = SPRING.with_name("iris.toml")
    config = load(iris, sim=True, overrides=flaws | over)
    run = train(config, tmp_path, lambda _: None).run
    found = fit_rig(config, iris, [Path(run)], None, tmp_path, lambda _: None)
    assert found.within
    assert found.distance_ideal > 3.0
    assert found.device_id == device(config)


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_a_drift_asks_for_a_calibration_in_the_status(drift: float, tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    over: dict[str, Any] = {
        "board__plant__imperfections__drift": drift,
        "rig__calibration": str(path),
    }
    config = spring_config(board__plant__imperfections__stiffness_mismatch=0.0, **over)
    kept.write(record(device(config)), path)
    random = np.random.default_rng(0)
    with mirror(config, tmp_path), client(config) as rig:
        rig.configure()
        rig.activate()
        rig.set_stiffness(random.uniform(95.0, 180.0, 28))
        for _ in range(100):  # 1600 cases, 45 s of rig time
            rig.settle(random.uniform(-0.01, 0.01, (16, 24)))
        status = owner.status(config)
    assert status is not None
    assert bool(status.recalibrate) == bool(drift)
    assert ("run `hil calibrate`" in foreground.describe(status)) == bool(drift)
    assert ("have drifted away" in (tmp_path / "mirror.log").read_text()) == bool(drift)


def test_the_response_is_looked_at_on_its_way(tmp_path: Path) -> None:
    config = spring_config(ideal=True, board__plant__settling_time=0.004)
    loads = np.random.default_rng(0).uniform(-0.02, 0.02, (1, 24))
    with mirror(config, tmp_path), client(config) as rig:
        rig.configure()
        rig.activate()
        k = rig.set_stiffness(np.full(28, 120.0))
        early = rig.sample_after(loads, 2000)
        rest = rig.settle(loads)
    share = 1 - 0.5 * (math.exp(-2.0 / 4.0) + math.exp(-2.25 / 4.0))
    expected = NETWORK.settle(k, loads).elongation
    np.testing.assert_allclose(early.elongation, share * expected, rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(rest.elongation, expected, rtol=1e-2, atol=1e-6)
