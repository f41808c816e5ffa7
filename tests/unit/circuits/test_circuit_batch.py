"""Circuits by ngspice against RK4, and against the error model of the fast simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hil.errors import MechanicsError, RunError
from sim.circuits.examples import SCALES, STEP, case, distance
from sim.circuits.netlist import CircuitParts, Kind
from sim.circuits.ngspice import read_raw, run_batch
from sim.instruments.gyro_machine import AnalogErrors
from tests.unit.circuits.needs import needs_ngspice

TAU_STEP = STEP * SCALES.time


@needs_ngspice
@pytest.mark.parametrize(("n", "steps"), [(1, 100), (2, 100), (7, 60)])
def test_the_error_falls_with_bandwidth_and_was_predicted(n: int, steps: int) -> None:
    which = case(n, steps)
    truth = which.truth()
    found = {}
    for product in (300.0, 1000.0, 3000.0):  # GBW·τ
        bandwidth = product / SCALES.time
        states = run_batch(
            which.circuit(CircuitParts(gain_bandwidth=bandwidth)), which.nudges, TAU_STEP
        )
        found[product] = error = distance(states, truth, truth)
        model = which.predicted(AnalogErrors(gain_bandwidth=bandwidth))
        assert 1 / 1.5 < distance(model, truth, truth) / error < 1.5
        # Not the size alone: most of what ngspice deviates by is in the model.
        assert distance(states, model, truth) < 0.4 * error
    assert found[1000.0] < 0.02
    assert 2.5 < found[300.0] / found[1000.0] < 4.0  # as 1/(GBW·τ)
    assert 2.5 < found[1000.0] / found[3000.0] < 4.0


@needs_ngspice
@pytest.mark.parametrize("kind", ["full", "lumped"])
def test_a_multipliers_pole_was_predicted(kind: Kind) -> None:
    which = case(2)
    truth = which.truth()
    parts = CircuitParts(kind=kind, gain_bandwidth=3e6, multiplier_pole=3e5)
    states = run_batch(which.circuit(parts), which.nudges, TAU_STEP)
    errors = AnalogErrors(gain_bandwidth=3e6, multiplier_pole=3e5, loading=kind == "full")
    model = which.predicted(errors)
    error = distance(states, truth, truth)
    assert error > 0.005
    assert distance(states, model, truth) < 0.3 * error


@needs_ngspice
def test_resistors_can_make_up_for_loading() -> None:
    """The fastest of the pairs: its op-amps take 3.8 % as they are."""
    which = case(2, 100, seed=2)
    truth = which.truth()
    found = {}
    for trimmed in (False, True):
        parts = CircuitParts(gain_bandwidth=1e6, trimmed=trimmed)
        states = run_batch(which.circuit(parts), which.nudges, TAU_STEP, per_step=10)
        found[trimmed] = distance(states, truth, truth)
        model = which.predicted(AnalogErrors(gain_bandwidth=1e6, trimmed=trimmed))
        assert distance(states, model, truth) < 0.3 * found[trimmed]
    assert found[True] < 0.5 * found[False]
    assert found[True] < 0.02


@needs_ngspice
def test_both_kinds_are_the_equations_where_parts_are_fast() -> None:
    which = case(7, 40)
    truth = which.truth()
    for kind in ("full", "lumped"):
        parts = CircuitParts(kind=kind, gain_bandwidth=1e8)
        states = run_batch(which.circuit(parts), which.nudges, TAU_STEP)
        assert distance(states, truth, truth) < 1e-3
        np.testing.assert_allclose(states[0], which.initial)


@needs_ngspice
def test_a_negative_mass_is_a_sign_on_a_board() -> None:
    """Freed on purpose: what pulls it pushes it."""
    which = case(2, 20)
    mass = np.asarray(which.parameters.mass) * (1.0, -1.0)
    which = replace(which, parameters=replace(which.parameters, mass=mass))
    states = run_batch(which.circuit(CircuitParts(gain_bandwidth=1e8)), which.nudges, TAU_STEP)
    truth = which.truth()
    assert distance(states, truth, truth) < 1e-3
    with pytest.raises(MechanicsError, match="lumped one has capacitors for masses"):
        which.circuit(CircuitParts(kind="lumped"))


@needs_ngspice
def test_what_ngspice_refuses_is_one_line() -> None:
    which = case(1, 5)
    broken = replace(which.circuit(CircuitParts()), lines=("r1 a 0 none", "r2 a"))
    with pytest.raises(RunError, match="ngspice: "):
        run_batch(broken, which.nudges, TAU_STEP)


def test_initial_states_beyond_the_clamp_are_refused() -> None:
    which = case(1)
    with pytest.raises(MechanicsError, match=r"beyond 1.188 machine units"):
        replace(which, initial=which.initial * 5).circuit(CircuitParts())


def test_a_raw_file_is_read_by_its_header(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(3, 2)
    head = (
        "Title: t\nFlags: real\nNo. Variables: 2\nNo. Points: 3\nVariables:\n"
        "\t0\ttime\ttime\n\t1\tV(A)\tvoltage\nBinary:\n"
    )
    raw = tmp_path / "x.raw"
    raw.write_bytes(head.encode() + values.astype("<f8").tobytes())
    names, found = read_raw(raw)
    assert names == ["time", "v(a)"]
    np.testing.assert_array_equal(found, values)
    for wrong in (b"", head.replace("real", "complex").encode(), head.encode()):
        raw.write_bytes(wrong)
        with pytest.raises(RunError, match="raw file"):
            read_raw(raw)
