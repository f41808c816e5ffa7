"""The comparison of learned dynamics at reduced size, and that a kill costs one cell at most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hil.cli import cli
from hil.errors import ConfigError


def bench(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["bench", *words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_the_suite_at_reduced_size(tmp_path: Path) -> None:
    found = bench("fnode", "--set", "preset=quick", "--runs", str(tmp_path))
    cases = found["cases"]
    assert set(cases) == {"mass-spring-damper", "cart-pole"}
    damped, pole = cases["mass-spring-damper"], cases["cart-pole"]
    assert damped["linear"]["full"]["median"] < 1e-12, "a linear plant"
    assert damped["FNODE"]["full"]["median"] < 7.6e-5, "the published figure"
    assert pole["Lagrangian"]["test"]["median"] < 1e-9
    assert pole["linear"]["full"]["median"] > 0.1, "a plant that is not linear"
    assert found["paper"]["cart-pole"]["FNODE"] == 6.7e-4
    run = Path(str(found["run"]))
    assert all(Path(p).stat().st_size > 10_000 for p in found["plots"])

    cells = run / "cells.json"
    done = json.loads(cells.read_text())
    lost = "cart-pole / FNODE / 1001"
    kept = done.pop(lost)
    done["cart-pole / FNODE / 1000"]["full"] = 123.0  # would be found out if it ran again
    cells.write_text(json.dumps(done))
    again = bench("fnode", "--resume", str(run))
    fresh = json.loads(cells.read_text())
    assert fresh["cart-pole / FNODE / 1000"]["full"] == 123.0
    assert {k: v for k, v in fresh[lost].items() if k != "cpu_seconds"} == {
        k: v for k, v in kept.items() if k != "cpu_seconds"
    }
    assert again["cases"]["cart-pole"]["FNODE"]["full"]["most"] == 123.0


def test_differentiation_and_friction_at_reduced_size(tmp_path: Path) -> None:
    quick = ("--set", "preset=quick", "--runs", str(tmp_path))
    found = bench("differentiation", *quick)
    noisy = found["cases"]["mass-spring-damper"]["0.01"]
    assert noisy["differences, 3 points"]["error"]["median"] > 10
    for method in ("penalised", "Gaussian process"):
        assert noisy[method]["error"]["median"] < 0.1
    rollouts = found["rollouts"]["mass-spring-damper"]
    assert rollouts["integral matching"]["median"] < 1e-3
    rubbing = bench("friction", *quick)
    figures, variance = rubbing["cases"]["2"], rubbing["spread_of_acceleration"]
    assert figures["learned"]["median"] < figures["between"]["median"] < 0.01 * variance
    assert all(Path(p).stat().st_size > 10_000 for p in found["plots"] + rubbing["plots"])


def test_names_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bench.*'lqr'; known: FNODE"):
        bench("fnode", "--set", 'bench.models=["lqr"]', "--runs", str(tmp_path))
    assert not list(tmp_path.iterdir())
