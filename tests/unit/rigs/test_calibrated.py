"""A calibration: kept per device, refused for another, applied on both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import build
from hil.errors import ConfigError, InputError
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs import calibration as kept
from hil.rigs.calibrated import KIND, Calibrated, SpringCalibration
from tests.unit.rigs.calibrations import GEOMETRY, record
from tests.unit.sim.rig import shipped, some_loads

NETWORK = SpringNetwork.from_geometry(GEOMETRY)


def rig(which: str, **over: Any) -> Calibrated:
    config = shipped(**over)
    assert config.board is not None
    kind = "sim.rigs.spring_network:SimSpringNetwork"
    inner = build(config.rig | {"kind": kind, "plant": config.board["plant"]}, "rig", seed=0)
    return Calibrated(inner, NETWORK, which)


FLAWS = {
    "board__plant__imperfections__stiffness_mismatch": 0.05,
    "board__plant__imperfections__sensor_gain": 0.1,
    "board__plant__imperfections__sensor_noise": 0.0,
    "board__plant__imperfections__adc_bits": 0,
    "board__plant__imperfections__dac_bits": 0,
}


def test_what_is_kept_is_found_again_by_its_device() -> None:
    made = record("77", gain=1.25)
    path = kept.store(made)
    assert path.parent == kept.directory()
    here = kept.geometry_hash(GEOMETRY)
    assert kept.chosen("auto", KIND, "77", here) == made
    assert kept.chosen("auto", KIND, "78", here) is None
    assert kept.chosen("none", KIND, "77", here) is None
    assert made.name.startswith("77 of 2026-01-02 (")


def test_another_device_geometry_or_file_is_refused_in_one_line(tmp_path: Path) -> None:
    here = kept.geometry_hash(GEOMETRY)
    path = tmp_path / "one.json"
    kept.write(record("77"), path)
    for device, geometry, words in (
        ("78", here, "is of device 77, this rig is 78"),
        ("77", "0" * 16, "is of geometry"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            kept.chosen(str(path), KIND, device, geometry)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="a rig of kind"):
        kept.chosen(str(path), "emulator", "77", here)
    for content in (b"{}", b"\xff", b'{"format": 1'):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not a calibration"):
            kept.chosen(str(path), KIND, "77", here)
    with pytest.raises(ConfigError, match="cannot be read"):
        kept.chosen(str(tmp_path / "none.json"), KIND, "77", here)
    short = record("77", parameters={"gain": kept.Parameter("1", [1.0], [0.0])})
    with pytest.raises(ConfigError, match="no 'zero'"):
        SpringCalibration(short, 24, 28)
    with pytest.raises(ConfigError, match="another number of channels"):
        SpringCalibration(record("77"), 20, 28)
    with pytest.raises(InputError, match="end it, then calibrate"):
        kept.require_none({"calibration": "x"})


def test_with_the_true_calibration_a_rig_is_ideal(tmp_path: Path) -> None:
    known = rig("none", **FLAWS)
    known.configure()
    plant = known._rig.plant  # type: ignore[attr-defined]
    mismatch = plant.true_stiffness(np.full(28, 100.0)) / 100.0 - 1.0
    path = tmp_path / "true.json"
    kept.write(record("sim-0", plant.gain, mismatch), path)
    with rig(str(path), **FLAWS) as it:
        info = it.configure()
        assert info.details["calibration"].startswith("sim-0 of")
        it.activate()
        asked = np.random.default_rng(0).uniform(90.0, 180.0, 28)
        applied = it.set_stiffness(asked)
        np.testing.assert_allclose(applied, asked, rtol=1e-9)
        np.testing.assert_array_equal(it.read_stiffness(), applied)
        loads = 0.3 * some_loads(6)  # inside every sensor
        true = NETWORK.settle(asked, loads)
        measured = it.settle(loads)
        np.testing.assert_allclose(measured.displacement, true.displacement, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(measured.elongation, true.elongation, rtol=1e-9, atol=1e-15)
        # What no actuator reaches saturates at the command's end, and that is said.
        most = it.set_stiffness(np.full(28, 206.25))
        stuck = mismatch < 0
        np.testing.assert_allclose(most[stuck], 206.25 * (1 + mismatch[stuck]), rtol=1e-9)
        np.testing.assert_allclose(most[~stuck], 206.25, rtol=1e-9)


def test_corrected_and_raw_are_inverse() -> None:
    gain = np.random.default_rng(1).uniform(0.8, 1.2, 52)
    known = SpringCalibration(record("1", gain), 24, 28)
    u, e = some_loads(3), some_loads(3, 1)[:, :1] * np.ones(28)
    for found, expected in zip(known.raw(*known.corrected(u, e)), (u, e), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert known.stiffness(np.zeros(28)).max() == 0.0  # a command nobody knows stays unknown
