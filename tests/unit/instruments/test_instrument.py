"""The instrument's registers and runs, without a socket; and what its manual says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hil.messages.instrument import POWER_ON
from hil.messages.scpi import ErrorCode, block, integers, parse_report, reals
from sim.instruments.gyro_machine import AnalogErrors, GyroMachine
from sim.instruments.instrument import Instrument
from sim.instruments.registers import InstrumentSettings
from sim.instruments.scpi import MessageParser

MANUAL = Path(__file__).parents[3] / "docs" / "instrument.md"


def made() -> Instrument:
    return Instrument(InstrumentSettings(), GyroMachine(AnalogErrors(), 0), "virtual")


def say(instrument: Instrument, text: bytes) -> bytes:
    (message,) = MessageParser().feed(text + b"\n")
    return instrument.answer(message)


def error(instrument: Instrument) -> int:
    return parse_report(say(instrument, b"SYST:ERR?").decode()).code


def prepared() -> Instrument:
    """Return two gyroscopes without a spring, ready for a run of 2 cases of 4 steps."""
    instrument = made()
    for line in (
        b"NETW:DEF 2," + block(b""),
        *(b"COEF:RANG %b,0.1,4" % group for group in (b"MASS", b"LENG", b"GAMM", b"STIF")),
        *(
            b"COEF:DATA %b," % group + block(reals(np.ones(2)))
            for group in (b"MASS", b"LENG", b"GAMM")
        ),
        b"COEF:DATA STIF," + block(b""),
        b"INP:NOD " + block(integers(np.array([1]))),
        b"DAQ:NOD " + block(integers(np.array([0, 1]))),
        b"RUN:BATC 2,4,2",
        b"INP:DATA " + block(reals(np.full((2, 4, 1, 2), 0.1))),
        b"OUTP ON",
    ):
        say(instrument, line)
        assert error(instrument) == 0, line
    return instrument


@pytest.mark.parametrize(
    "setting",
    [b"NETW:DEF 2," + block(b""), b"RUN:BATC 3,4,2", b"INP:NOD " + block(integers(np.array([0])))],
)
def test_a_held_run_whose_settings_change_is_given_up(setting: bytes) -> None:
    instrument = prepared()
    for line in (b"INIT", b"MODE HALT", setting):
        say(instrument, line)
        assert error(instrument) == 0, line
    say(instrument, b"MODE OP")
    assert error(instrument) == ErrorCode.SETTINGS_CONFLICT
    instrument.advance()  # with nothing to go on with
    assert say(instrument, b"RUN:STAT?").split(b",")[1] == b"IDLE"


def test_the_manual_has_every_command() -> None:
    manual = MANUAL.read_text()
    for pattern in made()._commands():
        name = pattern.rstrip("?")
        assert f"`{pattern}`" in manual or re.search(rf"`{re.escape(name)}`.* and `\?`", manual), (
            pattern
        )


def test_power_on_is_said_once() -> None:
    instrument = made()
    assert int(say(instrument, b"*ESR?")) & POWER_ON
    assert int(say(instrument, b"*ESR?")) == 0
    say(instrument, b"FOO")
    assert int(say(instrument, b"*ESR?")) == 32


def test_a_message_ends_at_its_first_error() -> None:
    instrument = made()
    assert say(instrument, b"RUN:STEP 0.1;FOO;STEP 0.2;STEP?") == b""
    assert error(instrument) == ErrorCode.UNDEFINED_HEADER
    assert error(instrument) == 0
    assert float(say(instrument, b"RUN:STEP?")) == 0.1
    assert say(instrument, b"RUN:STEP?;ICT?") == b"0.1;0.0001\n"


@pytest.mark.parametrize(
    ("without", "said"),
    [(b"OUTP OFF", "output"), (b"RUN:BATC 2,4,2", "inputs"), (b"COEF:RANG MASS,0,9", "MASS")],
)
def test_a_run_needs_everything(without: bytes, said: str) -> None:
    instrument = prepared()
    say(instrument, without)
    say(instrument, b"INIT")
    report = parse_report(say(instrument, b"SYST:ERR?").decode())
    assert report.code == ErrorCode.SETTINGS_CONFLICT
    assert said in report.text
    assert say(instrument, b"RUN:STAT?").startswith(b"0,IDLE")


def test_ic_op_halt_and_on() -> None:
    instrument = prepared()
    assert say(instrument, b"MODE?") == b"IC\n"
    say(instrument, b"INIT")
    assert say(instrument, b"MODE?") == b"OP\n"
    instrument.advance()
    say(instrument, b"RUN:STEP 1")
    assert error(instrument) == ErrorCode.SETTINGS_CONFLICT  # not while it runs
    say(instrument, b"MODE HALT")
    assert instrument.wait() is None
    held = say(instrument, b"RUN:STAT?")
    instrument.advance()
    assert say(instrument, b"RUN:STAT?") == held
    say(instrument, b"MODE OP")
    while instrument.wait() is not None:
        instrument.advance()
    run, state, done, _, _, took = say(instrument, b"RUN:STAT?").decode().split(",")
    assert (run, state, done) == ("1", "DONE", "2")
    assert int(took) == 2 * (100 + 4 * 50)
    assert float(say(instrument, b"RUN:TIME?")) == pytest.approx(int(took) / 1e6)
    assert say(instrument, b"MODE?") == b"HALT\n"
    say(instrument, b"FETC:TRAC? 0,3")
    assert error(instrument) == ErrorCode.OUT_OF_RANGE
    assert say(instrument, b"FETC:TRAC? 1,1").startswith(b"#")


def test_an_abandoned_run_has_no_traces() -> None:
    instrument = prepared()
    say(instrument, b"INIT")
    say(instrument, b"MODE IC")
    assert b"IDLE" in say(instrument, b"RUN:STAT?")
    say(instrument, b"FETC:TRAC? 0,1")
    assert error(instrument) == ErrorCode.OUT_OF_RANGE
    say(instrument, b"INIT")
    assert say(instrument, b"RUN:STAT?").startswith(b"2,OP")
