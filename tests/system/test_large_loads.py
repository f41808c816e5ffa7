"""Nonlinear equilibria through firmware, serial line, mirror and bus; a gate learned and kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hil.config import load
from hil.mechanics.finite_springs import FiniteSpringNetwork
from hil.mechanics.geometry import triangular_lattice
from tests.system.rigs import ROOT, client, hil, hil_here, mirror

XOR = ROOT / "configs/xor.toml"


def test_the_whole_stack_carries_nonlinear_equilibria(tmp_path: Path) -> None:
    config = load(XOR, sim=True, overrides={"ideal": True, "rig.name": "large-loads-test"})
    geometry = triangular_lattice(4)
    loads = np.zeros((2, 24))
    loads[:, geometry.dof(2, 0)], loads[:, geometry.dof(10, 1)] = 0.3, (0.3, -0.3)
    k = np.random.default_rng(3).uniform(90.0, 180.0, 28)
    with mirror(config, tmp_path), client(config) as rig:
        rig.configure()
        rig.activate()
        applied = rig.set_stiffness(k)
        found = rig.settle(loads)
    expected = FiniteSpringNetwork.from_geometry(geometry).settle(applied, loads)
    assert np.allclose(found.displacement, expected.displacement, atol=2e-9)  # float32
    assert np.allclose(found.elongation, expected.elongation, atol=2e-9)
    assert found.twin_residual is not None
    assert found.twin_residual < 1e-5  # the mirror's model knows true lengths too


def test_a_few_steps_of_xor_say_margin_strain_and_bound(tmp_path: Path) -> None:
    ended = hil(
        "train", str(XOR), "--sim", "--json", "--runs", str(tmp_path), "--seed", "1",
        "--set", "training.epochs=3", "--set", "training.check.bonds=0",
        "--set", "training.adjoint_force=0.02",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["figures"]["linear_bound"] == 0.5
    assert outcome["figures"]["margin_m"] < 1e-3
    assert 0.05 < outcome["peak_strain"] < 0.3
    assert outcome["branch_jumps"] == 0
    assert outcome["gradient_cosine"] > 0.8  # 12 bit, mismatch and noise as shipped
    assert outcome["measurements"] == 3 * 12 + 28 + 2 * 12


def test_a_load_beyond_the_rig_is_refused_at_once(tmp_path: Path) -> None:
    ended = hil_here("train", str(XOR), "--sim", "--set", "rig.force_max=0.302")
    assert ended.returncode == 2
    assert "forces of 0.305 N are needed, above rig.force_max 0.302 N" in ended.stderr
