"""Circuits that run slice by slice, and what becomes of a rig whose circuit dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from hil.errors import FaultError, RunError
from hil.mechanics.gyro_network import GyroParameters
from hil.rigs.base import RigState
from sim.circuits.examples import SCALES, STEP, case, distance
from sim.circuits.live import CircuitLostError, LiveCircuit
from sim.circuits.netlist import CircuitParts, Kind
from sim.circuits.ngspice import run_batch
from tests.unit.circuits.needs import needs_library, needs_ngspice
from tests.unit.instruments.emulators import rig_of, server_of, shipped

TAU_STEP = STEP * SCALES.time
pytestmark = needs_library


@needs_ngspice
@pytest.mark.parametrize("kind", ["full", "lumped"])
def test_slices_make_the_run_that_a_batch_makes(kind: Kind) -> None:
    which = case(2, 60)
    circuit = which.circuit(CircuitParts(kind=kind))
    live = LiveCircuit()
    try:
        live.load(circuit, 60, TAU_STEP)
        states = np.stack([which.initial] + [live.advance(nudge) for nudge in which.nudges])
        pid = live.pid
        live.load(circuit, 60, TAU_STEP)  # a run that ended is followed by another
        again = live.advance(which.nudges[0])
        assert live.pid == pid
        with pytest.raises(RunError, match="expected 4 finite nudges"):
            live.advance(np.full((2, 2), np.nan))
        live.load(circuit, 1, TAU_STEP)  # one in the middle is given up
        np.testing.assert_allclose(live.advance(which.nudges[0]), again, atol=1e-6)
        with pytest.raises(RunError, match="no slice is left"):
            live.advance(which.nudges[0])
    finally:
        live.close()
        live.close()
    np.testing.assert_array_equal(again, states[1])
    truth = which.truth()
    assert distance(states, truth, truth) < 0.02
    assert distance(states, run_batch(circuit, which.nudges, TAU_STEP), truth) < 5e-4


def test_inputs_of_a_slice_may_depend_on_the_one_before() -> None:
    """Feedback through the host: the circuit stands still meanwhile."""
    which = case(1, 40)
    network, p = which.network, which.parameters
    live = LiveCircuit()
    try:
        live.load(which.circuit(CircuitParts(gain_bandwidth=1e8)), 40, TAU_STEP)
        state, expected = which.initial, which.initial
        unit = np.array([1.0, 1.0, 4.0, 4.0])
        for _ in range(40):
            state = live.advance(-0.5 * state[:, 2:])
            nudge = -0.5 * expected[:, 2:] * SCALES.force
            expected = network.rollout(
                p, nudge[None, None], STEP, initial=(expected * unit)[None], substeps=8
            )[0, -1] / unit  # fmt: skip
            time.sleep(0.001)
    finally:
        live.close()
    np.testing.assert_allclose(state, expected, atol=2e-3)


def test_a_circuit_that_is_refused_leaves_the_next_one_alone() -> None:
    which = case(1, 5)
    good = which.circuit(CircuitParts())
    broken = replace(good, lines=("r1 a 0 none", "r2 a"))
    live = LiveCircuit()
    try:
        with pytest.raises(RunError, match="ngspice"):
            live.load(broken, 5, TAU_STEP)
        live.load(good, 5, TAU_STEP)
        assert np.isfinite(live.advance(which.nudges[0])).all()
    finally:
        live.close()


def test_a_dead_process_is_a_lost_circuit_and_the_next_load_starts_another() -> None:
    which = case(1, 5)
    circuit = which.circuit(CircuitParts())
    live = LiveCircuit()
    try:
        live.load(circuit, 5, TAU_STEP)
        first = live.advance(which.nudges[0])
        assert live.pid is not None
        os.kill(live.pid, signal.SIGKILL)
        with pytest.raises(CircuitLostError, match="the circuit is gone"):
            live.advance(which.nudges[1])
        live.load(circuit, 5, TAU_STEP)
        np.testing.assert_array_equal(live.advance(which.nudges[0]), first)
    finally:
        live.close()


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    which = case(1, 5)
    live = LiveCircuit()
    try:
        live.load(which.circuit(CircuitParts()), 5, TAU_STEP)
        assert live.pid is not None
        os.kill(live.pid, signal.SIGSTOP)
        monkeypatch.setattr("sim.circuits.live.PATIENCE_S", 0.2)
        monkeypatch.setattr("sim.circuits.live.END_S", 0.1)
        with pytest.raises(CircuitLostError, match="it hung"):
            live.advance(which.nudges[0])
        assert live.pid is None
    finally:
        live.close()


def test_a_crash_of_ngspice_is_a_latched_fault_of_the_rig() -> None:
    config = shipped(
        ideal=False,
        board__circuit={"gain_bandwidth": 1e7},
        board__instrument={"coefficient_bits": 0, "adc_bits": 0, "dac_bits": 0},
        rig__geometry={"rows": 2, "columns": 2, "wrap": "none"},
        rig__driven=[1],
        rig__recorded=[],
    )
    with server_of(config) as server, rig_of(config, server.url) as rig:
        rig.configure()
        springs = rig.network.spring_count
        values = np.concatenate((np.ones(12), np.full(springs, 5.0)))
        rig.set_coefficients(values)
        rig.activate()
        nudges = np.zeros((2, 10, 2))
        nudges[0, :, 0], nudges[1, :, 1] = 2.0, -1.0
        before = rig.run(nudges)
        truth = rig.network.rollout(
            GyroParameters(1.0, 1.0, 1.0, 5.0), nudges.reshape(2, 10, 1, 2), STEP,
            inputs=np.array([0]), substeps=4,
        )  # fmt: skip
        assert distance(before.states, truth.reshape(2, 11, -1), truth) < 5e-3
        assert before.took == pytest.approx(before.predicted)

        def crash() -> None:
            machine = server.instrument.machine
            pid = machine.live.pid  # type: ignore[attr-defined]
            os.kill(pid, signal.SIGSEGV)

        timer = threading.Timer(0.1, crash)
        timer.start()
        with pytest.raises(FaultError, match=r"Analog part lost.*clear\(\)"):
            rig.run(np.repeat(nudges, 50, axis=0))
        timer.join()
        assert rig.state is RigState.FAULT
        assert "Analog part lost" in rig.fault
        rig.clear()
        rig.activate()
        np.testing.assert_array_equal(rig.run(nudges).states, before.states)
