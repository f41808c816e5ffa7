"""`hil collect`, `hil fit` and `hil control` from the outside, on the simulated cart-pole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import Config, load
from hil.errors import FaultError, LimitError
from hil.recording.reader import read
from hil.rigs.base import RigState
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from tests.system.control import BALANCE, active, balance, loop_of, run
from tests.system.rigs import ROOT, address, hil, mirror

COLLECT = ROOT / "configs/cart_pole_collect.toml"
FNODE = ROOT / "configs/fnode.toml"
SYMO = ROOT / "configs/symo.toml"
KEYS = {
    "steps", "cost", "final_error_norm", "max_abs_input", "solve_us_p50", "solve_us_p99",
    "round_trip_us_p50", "round_trip_us_p99", "missed_deadlines", "fallbacks", "run",
}  # fmt: skip


def control(runs: Path, *words: str) -> dict[str, object]:
    ended = hil("control", str(BALANCE), "--sim", "--json", "--runs", str(runs), *words)
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return outcome


def test_it_balances_and_says_how_well(tmp_path: Path) -> None:
    outcome = control(tmp_path, "--set", "loop.duration=4")
    assert outcome.keys() >= KEYS
    assert outcome["steps"] == 200
    assert outcome["fallbacks"] == 0
    assert float(str(outcome["final_error_norm"])) < 0.1
    assert float(str(outcome["max_abs_input"])) <= 20.0
    run = Path(str(outcome["run"]))
    assert (run / "plots/control.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(read(run / "recording.mcap"))) == 200


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    recordings = []
    for place, seed in (("a", 3), ("b", 3), ("c", 4)):
        words = ("--set", "loop.duration=3", "--seed", str(seed))
        outcome = control(tmp_path / place, *words)
        recordings.append((Path(str(outcome["run"])) / "recording.mcap").read_bytes())
    assert recordings[0] == recordings[1] != recordings[2]


def test_what_was_collected_is_learned_and_balances(tmp_path: Path) -> None:
    """A short, small version of the three commands; the slopes at the upright are the plant's."""
    words = ("--sim", "--json", "--runs", str(tmp_path), "--set", "loop.duration=40")
    collected = hil("collect", str(COLLECT), *words)
    assert collected.returncode == 0, collected.stderr
    data = json.loads(collected.stdout.splitlines()[-1])["run"]
    small = ("--set", "fit.network.hidden=[64, 64]", "--set", "fit.epochs=5")
    fitted = hil("fit", str(FNODE), data, "--runs", str(tmp_path), "--json", *small)
    assert fitted.returncode == 0, fitted.stderr
    outcome = json.loads(fitted.stdout.splitlines()[-1])
    assert outcome["origin_by_state"][0][0] == pytest.approx(39.24, rel=0.05)
    assert outcome["origin_by_input"][0][0] == pytest.approx(-2.0, rel=0.05)
    model = f"model={{kind='hil.models.stored:StoredModel', path='{outcome['model']}'}}"
    start = "board.plant.start=[0.03, 0.0, 0.0, 0.0]"
    driven = control(tmp_path, "--set", model, "--set", start, "--set", "loop.duration=4")
    assert float(str(driven["final_error_norm"])) < 0.1

    # The same with a discrete Lagrangian, from poses alone from the recording to the plan.
    small = ("--set", "fit.network.hidden=[8, 8]", "--set", "fit.iterations=3")
    fitted = hil("fit", str(SYMO), data, "--runs", str(tmp_path), "--json", *small)
    assert fitted.returncode == 0, fitted.stderr
    outcome = json.loads(fitted.stdout.splitlines()[-1])
    assert outcome["origin_by_input"][0][0] == pytest.approx(-2.0, rel=0.1)
    model = f"model={{kind='hil.models.stored:StoredModel', path='{outcome['model']}'}}"
    driven = control(tmp_path, "--set", model, "--set", start, "--set", "loop.duration=4")
    assert float(str(driven["final_error_norm"])) < 0.1
    assert driven["fallbacks"] == 0


def cart_pole(tmp_path: Path, **overrides: object) -> tuple[Config, Path]:
    record = tmp_path / "plant.jsonl"
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    config = load(
        ROOT / "configs/cart_pole.toml",
        sim=True,
        overrides={"board.record": str(record), **dotted},
    )
    return config, record


def test_the_mirror_owns_a_cart_pole_as_it_owns_any_rig(tmp_path: Path) -> None:
    config, _ = cart_pole(tmp_path)
    with mirror(config, tmp_path):
        rig = RemoteDynamicRig(address(config), mint=Minting, client="test")
        with rig:
            info = rig.configure()
            assert (info.measurements, info.inputs) == (("angle", "position"), ("force",))
            rig.activate()
            first = rig.read()
            assert rig.write(np.array([99.0])) == pytest.approx([20.0])  # clipped at the limit
            assert rig.read().sequence == first.sequence + 1
            for u in (np.array([np.nan]), np.zeros(2)):
                with pytest.raises(LimitError):
                    rig.write(u)
            rig.stop("hand on the button")
            with pytest.raises(FaultError, match="hand on the button"):
                rig.read()
            rig.clear()
            assert rig.state is RigState.INACTIVE


def steady_error(tmp_path: Path, **overrides: Any) -> float:
    """Return the mean of |x| over the last 2 s of 12, m, with 1.5 N on the cart from outside.

    Without dry friction: that lets the cart creep to and fro by millimetres, push or no push.
    """
    push = {"board__plant__push": 1.5, "board__plant__parameters__cart_coulomb": 0.0}
    config, _ = balance(tmp_path, loop__duration=12.0, **push, **overrides)
    with mirror(config, tmp_path), active(config) as rig:
        steps = run(loop_of(config, rig))
    return float(np.mean([abs(step.sample.y[1]) for step in steps[-100:]]))


def test_a_constant_force_leaves_no_steady_error(tmp_path: Path) -> None:
    """Less than a step of the angle's encoder is at the pole's tip."""
    step = 0.5 * math.tau / 4096  # m
    assert steady_error(tmp_path) < step
    assert steady_error(tmp_path, estimator__disturbance_noise=[]) > 100 * step
