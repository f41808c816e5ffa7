"""The command line as a person and as a script meet it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hil.cli import cli
from hil.config import Config, load
from hil.services import owner
from tests.system.rigs import IRIS, ROOT, SPRING, hil, mirror, spring_config, until


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    ended = hil(verb, "--help")
    assert ended.returncode == 0
    assert f"hil {verb}" in ended.stdout.split("Usage")[1].split("\n", 1)[1]
    assert "--json" in ended.stdout


def test_serve_status_stop_clear_and_the_end(tmp_path: Path) -> None:
    """A whole session, each verb from its own process."""
    assert hil("status").stdout.strip() == "no mirror is running"
    nothing = hil("stop")
    assert nothing.returncode == 1
    assert "no mirror is running" in nothing.stderr
    server = subprocess.Popen(
        [sys.executable, "-m", "hil", "serve", str(SPRING), "--sim", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: bool(owner.served_rigs()))
        until(lambda: "inactive" in hil("status").stdout)
        (report,) = json.loads(hil("status", "--json").stdout)["rigs"]
        assert (report["name"], report["state"]) == ("spring-network", "inactive")
        second = hil("serve", str(SPRING), "--sim")
        assert second.returncode == 1
        assert "another mirror owns it already" in second.stderr
        assert json.loads(hil("stop", str(SPRING), "--json").stdout)["stopped"] == {
            "spring-network": "fault"
        }
        refused = hil("train", str(IRIS), "--sim", "--runs", str(tmp_path))
        assert refused.returncode == 1
        assert "is in fault (hil stop); remove the cause, then `hil clear" in refused.stderr
        assert "hil stop" in hil("status", str(SPRING)).stdout
        assert json.loads(hil("clear", str(SPRING), "--json").stdout) == {"state": "inactive"}
    finally:
        server.send_signal(signal.SIGINT)
        out, said = server.communicate(timeout=30)
    assert server.returncode == 0, said
    assert "ipc://" in said
    assert json.loads(out)["name"] == "spring-network"
    assert not owner.served_rigs()


def test_validate_says_what_the_parts_are() -> None:
    ended = hil("validate", str(IRIS), "--sim", "--json")
    parts = json.loads(ended.stdout)["parts"]
    assert parts["rig"].endswith("24 degrees of freedom, 28 bonds, 4 self-stresses")
    assert parts["task"].endswith("105 to train, 45 to test")
    assert hil("validate", str(IRIS), "--set", "task.colour=3").returncode == 2
    assert hil("validate", "nowhere.toml").returncode == 2


def test_the_published_schema_knows_the_shipped_files() -> None:
    schema = json.loads(hil("validate", "--schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    definitions = schema["$defs"]
    assert set(definitions["Config"]["properties"]) == set(Config.__struct_fields__)
    watchdog = definitions["SpringNetworkRigSettings"]["properties"]["watchdog"]
    assert watchdog["maximum"] == 60
    assert watchdog["description"].endswith("s")


def test_doctor_and_devices() -> None:
    doctor = hil("doctor", "--json")
    findings = {f["what"]: f for f in json.loads(doctor.stdout)["findings"]}
    assert findings["Python"]["ok"]
    lacking = hil("doctor", env=os.environ | {"PATH": "", "CC": ""})
    assert lacking.returncode == 1
    assert "apt install gcc libc6-dev" in lacking.stdout
    assert isinstance(json.loads(hil("devices", "--json").stdout)["devices"], list)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it into a folder of its own."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(place), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = place.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        assert not [n for n in names if n.startswith(("tests/", "runs/", "firmware/"))]
        assert not [n for n in names if n.endswith((".o", ".a"))]
        archive.extractall(place / "site")
    return place / "site"


def test_the_wheel_alone_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """In an empty folder, with a cache of its own: it carries firmware and configurations."""
    environ = os.environ | {"PYTHONPATH": str(wheel), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    where = subprocess.run(
        [sys.executable, "-c", "import hil, sim; print(hil.__file__, sim.__file__)"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.count(str(wheel)) == 2
    ended = hil("demo", "--json", cwd=tmp_path, env=environ)
    assert ended.returncode == 0, ended.stderr
    assert "epoch 100/100" in ended.stderr
    outcome = json.loads(ended.stdout)
    assert outcome["test_accuracy"] > 0.8
    assert (tmp_path / outcome["run"] / "plots" / "network.png").exists()


def test_the_wheel_alone_shows_a_stroke_on_an_emulator(wheel: Path, tmp_path: Path) -> None:
    """In an empty folder, without data and without a compiler of C."""
    environ = os.environ | {"PYTHONPATH": str(wheel), "CC": "false"}
    environ.pop("HIL_DATA", None)
    ended = hil("demo", "emulator", "--json", cwd=tmp_path, env=environ)
    assert ended.returncode == 0, ended.stderr
    assert "epoch 16/16" in ended.stderr
    outcome = json.loads(ended.stdout)
    assert outcome["written"] == list("0123456789")
    assert outcome["model_accuracy"] > 0.95
    assert outcome["instrument_accuracy"] > 0.9
    right = sum(a == b for a, b in zip(outcome["written"], outcome["instrument_read"], strict=True))
    assert right >= 8
    assert 0.0 < outcome["difference"] < 0.5, "the instrument has imperfections, and is one"
    assert outcome["took_s"] == pytest.approx(outcome["predicted_s"], rel=1e-3)
    names = [Path(plot).name for plot in outcome["plots"]]
    assert names == ["rollout.png", "signals.png", "stroke.gif", "maps.png"]
    assert all((tmp_path / plot).stat().st_size > 10_000 for plot in outcome["plots"])
    assert not owner.served_rigs(), "the mirror ended with the demonstration"
    again = hil("plot", outcome["run"], cwd=tmp_path, env=environ)
    assert again.returncode == 2
    assert "pictures are drawn while it runs only" in again.stderr


def test_an_emulator_that_somebody_has_is_not_taken(tmp_path: Path) -> None:
    config = load(ROOT / "configs/emulator_demo.toml", sim=True)
    with mirror(config, tmp_path):
        ended = hil("demo", "emulator", "--runs", str(tmp_path / "runs"))
    assert ended.returncode == 1
    assert "rig emulator-demo: a mirror owns it already" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_without_a_compiler_the_demo_names_the_package(wheel: Path, tmp_path: Path) -> None:
    environ = os.environ | {
        "PYTHONPATH": str(wheel), "XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path), "CC": "",
    }  # fmt: skip
    ended = hil("demo", cwd=tmp_path, env=environ)
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("hil: ")]
    assert "apt install gcc libc6-dev" in line


def test_the_page_of_the_command_line_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location(
        "write_cli_docs", ROOT / "tools/write_cli_docs.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/cli.md").read_text() == module.page(), "run `make docs`"


def test_the_python_example_of_the_docs_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with mirror(spring_config(ideal=True), tmp_path):
        ended = subprocess.run(
            [sys.executable, "-c", example], capture_output=True, text=True, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("[[")
