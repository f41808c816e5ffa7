"""A rig without actuators: what a person is asked, what the camera lets pass."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hil.config import build, load
from hil.errors import ConfigError, DeadmanError, FaultError, MeasurementError
from hil.links.camera import CameraLink
from hil.mechanics.geometry import triangular_lattice
from hil.rigs.base import RigState, Token
from hil.rigs.bench import Answer, Hang, HoldBoard, Instruction, LookAgain, Mount
from hil.rigs.manual import ManualRig
from hil.rigs.stock import GRAM, Drawer, Struts, Weights
from hil.rigs.terminal_bench import CameraSettings, TerminalBench
from hil.safety.deadman import Forwarded, Minting
from sim.boards.bench import SimBench
from tests.system.rigs import ROOT

MANUAL = ROOT / "configs/manual.toml"
GEOMETRY = triangular_lattice(4)
NODE_14_Y = GEOMETRY.dof(13, 1)


def make(**overrides: object) -> tuple[ManualRig, SimBench]:
    few = {"rig.samples": 4, "rig.settle": 2.0} | {
        key.replace("__", "."): value for key, value in overrides.items()
    }
    config = load(MANUAL, sim=True, overrides=few)
    assert config.board is not None
    bench = build(config.board, "board", rig=config.rig, seed=1, ideal=config.ideal)
    tokens = Minting(60_000_000)
    return build(config.rig, "rig", tokens=tokens, clock="virtual", bench=bench), bench


@pytest.fixture
def at_rest() -> Iterator[tuple[ManualRig, SimBench]]:
    rig, bench = make()
    with rig:
        rig.configure()
        rig.activate()
        yield rig, bench


def pull(newtons: float) -> np.ndarray:
    load = np.zeros((1, 24))
    load[0, NODE_14_Y] = newtons
    return load


def test_a_drawer_rounds_to_what_is_in_it_and_tells_it_in_words() -> None:
    drawer = Drawer(Weights(pieces=(0.5, 1.0, 2.0, 2.0)), Struts(), np.full(28, 0.016))
    load = np.zeros(24)
    load[GEOMETRY.dof(13, 1)], load[GEOMETRY.dof(7, 0)] = -3.3 * GRAM, 0.1 * GRAM
    load[GEOMETRY.dof(1, 0)], load[GEOMETRY.dof(2, 1)] = -4.9 * GRAM, 9.0 * GRAM
    rounded = drawer.nearest_load(load)
    assert sorted(np.round(rounded[rounded != 0] / GRAM, 9)) == [-5.0, -3.5, 5.5]
    words = Hang(drawer.strings(rounded, GEOMETRY.dof_table), rounded, 2).words()
    assert words.splitlines() == [
        "load case 2: let these weights hang and no other:",
        "  5 g (2 + 2 + 1) at node 2, pulling left, over a pulley",
        "  5.5 g (2 + 2 + 1 + 0.5) at node 3, pulling up, over a pulley",
        "  3.5 g (2 + 1 + 0.5) at node 14, pulling down",
    ]
    everything = np.random.default_rng(1).uniform(-0.1, 0.1, 24)
    finest = Drawer(Weights(), Struts(), np.full(28, 0.016)).nearest_load(everything)
    assert np.abs(finest - everything).max() <= 0.0501 * GRAM
    # k = Y w t / a: 137.5 N/m at 2 mm (Li & Mao 2024)
    np.testing.assert_allclose(drawer.stiffness(np.full(28, 2.0)), 137.5)
    assert set(drawer.nearest_width(np.full(28, 140.0))) == {2.05}


def test_weights_are_hung_and_seen(at_rest: tuple[ManualRig, SimBench]) -> None:
    rig, bench = at_rest
    first, unload = bench.asked
    assert isinstance(first, Mount)
    assert first.words() == "make sure that all 28 struts are 2 mm wide"
    assert unload.words() == "take every weight off, and let the network come to rest"
    measured = rig.settle(pull(-0.0333))
    assert measured.applied is not None
    assert measured.applied[0, NODE_14_Y] == pytest.approx(-3.4 * GRAM)
    asked = bench.asked[-1]
    assert "3.4 g (2 + 1 + 0.2 + 0.2) at node 14, pulling down" in asked.words()
    truth = bench.displacement().ravel()[GEOMETRY.free_dofs]
    assert np.abs(measured.displacement[0] - truth).max() < 0.3 / 5300  # 0.3 px
    np.testing.assert_allclose(measured.elongation[0], rig.network.compat @ truth, atol=1e-4)
    assert measured.settled


def test_an_elongation_is_the_true_change_of_length() -> None:
    rig, _ = make(rig__regime="exact", board__plant__regime="exact", ideal=True)
    with rig:
        rig.configure()
        rig.activate()
        measured = rig.settle(pull(-0.1))
    moved = GEOMETRY.nodes.copy().ravel()
    moved[GEOMETRY.free_dofs] += measured.displacement[0]
    ends = moved.reshape(-1, 2)[GEOMETRY.bonds]
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    np.testing.assert_allclose(measured.elongation[0], length - 0.016, atol=2e-5)
    assert np.abs(measured.elongation[0] - rig.network.compat @ measured.displacement[0]).max() > (
        2e-5
    )


def test_struts_are_named_and_what_is_skipped_stays(at_rest: tuple[ManualRig, SimBench]) -> None:
    rig, bench = at_rest
    wanted = rig.read_stiffness()
    wanted[11] = 151.0
    applied = rig.set_stiffness(wanted)
    assert applied[11] == pytest.approx(5.5e5 * 2.2e-3 * 2e-3 / 0.016)
    assert bench.asked[-1].words().splitlines()[1] == (
        "  bond 12, node 7 to 8: 2.2 mm wide (was 2 mm)"
    )
    asked = len(bench.asked)
    np.testing.assert_array_equal(rig.set_stiffness(applied), applied)
    assert len(bench.asked) == asked  # nothing to be done, nothing asked
    bench.before = lambda instruction: Answer.SKIP
    np.testing.assert_array_equal(rig.set_stiffness(wanted + 30), applied)
    measured = rig.settle(pull(-0.05))
    assert measured.applied is not None
    assert not measured.applied.any()  # skipped: what hung before, nothing


def test_q_is_a_stop_and_the_way_back_is_clear(at_rest: tuple[ManualRig, SimBench]) -> None:
    rig, bench = at_rest
    bench.before = lambda instruction: Answer.STOP
    with pytest.raises(FaultError, match=r"stopped at the bench .* weights off; clear\(\)"):
        rig.settle(pull(-0.05))
    assert (rig.state, rig.fault) == (RigState.FAULT, "stopped at the bench")
    bench.before = lambda instruction: None
    rig.clear()
    rig.activate()
    rig.settle(pull(-0.05))
    bench.before = lambda instruction: rig.stop("hil stop")
    with pytest.raises(FaultError, match="hil stop"):
        rig.settle(np.repeat(pull(-0.05), 2, axis=0))


def test_a_hidden_marker_is_asked_for_and_then_refused(
    at_rest: tuple[ManualRig, SimBench],
) -> None:
    rig, bench = at_rest
    x, y = GEOMETRY.nodes[6]
    thumb = ((x - 0.003, y - 0.003, x + 0.003, y + 0.003),)
    bench.hidden = thumb
    with pytest.raises(MeasurementError, match="marker of node 7 is not seen"):
        rig.settle(pull(0.0))
    asked = [i for i in bench.asked if isinstance(i, LookAgain)]
    assert len(asked) == rig.settings.tries - 1
    assert "node 7" in asked[0].words()

    def take_it_away(instruction: Instruction) -> None:
        if isinstance(instruction, LookAgain):
            bench.hidden = ()

    bench.before = take_it_away
    assert rig.settle(pull(0.0)).settled


def test_a_bumped_camera_is_reported_and_costs_nothing(
    at_rest: tuple[ManualRig, SimBench],
) -> None:
    rig, bench = at_rest
    bench.bump((4e-4, 1e-4, 0.0), (0.0, 0.0, 0.002))
    measured = rig.settle(pull(-0.05))
    assert re.search(r"was bumped by 1\.\d px; .*goes on", bench.told[-1])
    truth = bench.displacement().ravel()[GEOMETRY.free_dofs]
    assert np.abs(measured.displacement[0] - truth).max() < 0.4 / 5300
    bench.move_marker(0, (5e-4, 0.0))
    with pytest.raises(MeasurementError, match="frame marker 1 is"):
        rig.settle(pull(-0.05))


def test_it_waits_for_rest() -> None:
    slow = {"board__plant__settling_time": 2.0, "rig__settle": 1.0, "ideal": True}
    rig, bench = make(rig__drift_max=2e-6, **slow)
    with rig:
        rig.configure()
        rig.activate()
        assert rig.settle(pull(-0.1)).settled
        assert bench.now_us() > 5e6
    rig, _ = make(rig__drift_max=2e-6, rig__settle_timeout=1.0, **slow)
    with rig:
        rig.configure()
        rig.activate()
        assert not rig.settle(pull(-0.1)).settled


def test_the_struts_are_remembered(tmp_path: Path) -> None:
    memory = str(tmp_path / "mounted.json")
    rig, _ = make(rig__mounted=memory)
    with rig:
        rig.configure()
        rig.activate()
        applied = rig.set_stiffness(np.linspace(100, 180, 28))
    again, bench = make(rig__mounted=memory)
    with again:
        again.configure()
        np.testing.assert_array_equal(again.read_stiffness(), applied)
        again.activate()
        assert not any(isinstance(asked, Mount) for asked in bench.asked)
    Path(memory).write_text("[2.0, 2.0]")
    for complaint in ("tells of 2 struts, the network has 28", "is no list of widths"):
        with pytest.raises(ConfigError, match=complaint):
            make(rig__mounted=memory)[0].configure()
        Path(memory).write_text("{")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 'simulated' at 800 × 600 px; calibrate"):
        make(board__camera__width=800, board__camera__height=600)[0].configure()
    with pytest.raises(ConfigError, match=r"no such lens; calibrate the camera"):
        make(rig__camera__lens=str(tmp_path / "none.json"))[0].configure()
    with pytest.raises(ConfigError, match=r"start: 7\.0 mm is not one of rig\.struts\.widths"):
        make(rig__struts__start=7.0)
    with pytest.raises(ConfigError, match=r"rig\.calibration: 'auto': a camera's calibration"):
        make(rig__calibration="auto")
    with pytest.raises(ConfigError, match=r"rig\.watchdog: 0\.1 s is too short"):
        make(rig__watchdog=0.1)
    rig, bench = make(rig__camera__lens="")
    rig.configure()
    with pytest.raises(MeasurementError, match="or the lens is not the calibrated one"):
        rig.activate()  # the distortion of a lens that was not calibrated bends the frame
    assert isinstance(bench.asked[-1], LookAgain)


def test_a_token_is_used_once() -> None:
    config = load(MANUAL, sim=True, overrides={"rig.samples": 2, "ideal": True})
    assert config.board is not None
    bench = build(config.board, "board", rig=config.rig)
    tokens = Forwarded()
    with build(config.rig, "rig", tokens=tokens, clock="virtual", bench=bench) as rig:
        rig.configure()
        rig.activate()
        tokens.put(Token(1, 10**12))
        rig.settle(pull(0.0))
        for token, complaint in ((None, "token of its own"), (Token(1, 10**12), "was used")):
            if token is not None:
                tokens.put(token)
            with pytest.raises(DeadmanError, match=complaint):
                rig.settle(pull(0.0))


def test_a_person_at_a_terminal_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    bench = TerminalBench(CameraSettings())
    ours, theirs = os.pipe()
    stdin = os.dup(0)
    os.dup2(ours, 0)
    try:
        os.write(theirs, b"what?\n\ns\nQ\n")
        board = HoldBoard(2, 12, 9, 6, 0.008)
        said = [bench.ask(board, lambda: False) for _ in range(3)]
        assert said == [Answer.DONE, Answer.SKIP, Answer.STOP]
        assert shown.getvalue().count("Enter: done") == 4  # asked again after "what?"
        assert "view 2 of 12: hold the checkerboard (9 × 6 inner corners" in shown.getvalue()
        stop = threading.Event()
        timer = threading.Timer(0.05, stop.set)
        timer.start()
        assert bench.ask(board, stop.is_set) is Answer.STOP
        timer.join()
        os.close(theirs)
        assert bench.ask(board, lambda: False) is Answer.STOP  # nobody is there
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(ours)


def test_a_camera_that_is_not_there_is_one_clear_line() -> None:
    from hil.errors import LinkError, PortError

    link = CameraLink("/dev/video99", (640, 480))
    with pytest.raises(PortError, match=r"camera /dev/video99: cannot be opened; look for it"):
        link.open()
    with pytest.raises(LinkError, match="not open"):
        link.grab(1, 0.0)


def test_a_mirror_hands_on_what_really_hung() -> None:
    from hil.messages import bus
    from hil.services.owned import own
    from hil.services.owned.by_hand import OwnedManual

    config = load(MANUAL, sim=True, overrides={"rig.samples": 2, "ideal": True})
    assert config.board is not None
    board = build(config.board, "board", rig=config.rig, ideal=True)
    owned = own(config, board.open(), board)
    assert isinstance(owned, OwnedManual)
    with owned.rig:
        assert owned.configure()["device_id"] == owned.port == "simulated"
        owned.rig.activate()
        load_case = pull(-0.0333)
        ref = bus.ArrayRef.of(load_case)
        settle = bus.Settle(
            seq=1, t_ns=0, deadline_ns=0, lease="", token=1, valid_until_us=10**12, loads=ref
        )
        carried = owned.carry_out(settle, [load_case])
        assert carried.arrays[2][0, NODE_14_Y] == pytest.approx(-3.4 * GRAM)
        assert carried.fields["applied"] == bus.ArrayRef.of(carried.arrays[2])
        assert owned.twin_residual is not None
        assert owned.twin_residual < 0.05


def test_only_a_bench_has_a_camera(tmp_path: Path) -> None:
    from hil.services.camera import look

    with pytest.raises(ConfigError, match=r"rig\.kind: .* has no camera"):
        look(load(ROOT / "configs/iris.toml", sim=True), tmp_path, print)
