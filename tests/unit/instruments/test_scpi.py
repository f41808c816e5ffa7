"""SCPI on the instrument's side: bytes in any pieces, blocks of any bytes, errors in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.messages.scpi import ErrorCode, block, parse_report
from sim.instruments import scpi
from sim.instruments.scpi import Call, CommandTable, ErrorQueue, MessageParser, ScpiError, spellings

CUTS = st.lists(st.integers(1, 30), max_size=20)


def fed(data: bytes, cuts: list[int]) -> list[list[Call] | ScpiError]:
    """Feed bytes in pieces."""
    parser, found = MessageParser(), []
    for cut in cuts:
        found += parser.feed(data[:cut])
        data = data[cut:]
    return found + parser.feed(data)


@given(st.binary(max_size=60), st.binary(max_size=60), CUTS)
def test_blocks_may_hold_any_byte_and_come_in_any_pieces(
    a: bytes, b: bytes, cuts: list[int]
) -> None:
    message = (
        b"coef:data MASS," + block(a) + b";*opc;RANG 1 , 2\nX " + block(b) + b"," + block(a) + b"\n"
    )
    assert fed(message, cuts) == [
        [
            Call("COEF:DATA", ("MASS", a)),
            Call("*OPC", ()),
            Call("COEF:RANG", ("1", "2")),
        ],
        [Call("X", (b, a))],
    ]


def test_a_semicolon_stays_on_the_level_and_a_colon_goes_to_the_root() -> None:
    (calls,) = fed(b"A:B:C 1;D 2;:E:F;G?\r\n", [])
    assert isinstance(calls, list)
    assert [call.header for call in calls] == ["A:B:C", "A:B:D", "E:F", "E:G?"]


def test_long_short_and_optional_keywords() -> None:
    assert set(spellings("SYSTem:ERRor[:NEXT]?")) == {
        "SYSTEM:ERROR?", "SYSTEM:ERROR:NEXT?", "SYSTEM:ERR?", "SYSTEM:ERR:NEXT?",
        "SYST:ERROR?", "SYST:ERROR:NEXT?", "SYST:ERR?", "SYST:ERR:NEXT?",
    }  # fmt: skip
    table = CommandTable({"MODE": lambda call: call.word(0, "IC", "HALT")})
    (calls,) = fed(b"mode halt\n", [])
    assert isinstance(calls, list)
    assert table.handler(calls[0])(calls[0]) == "HALT"
    with pytest.raises(ScpiError) as error:
        table.handler(Call("MODU", ()))
    assert error.value.code == ErrorCode.UNDEFINED_HEADER


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"X #12abc\nY\n", ErrorCode.INVALID_BLOCK),  # longer than it says
        (b"X #0abc\nY\n", ErrorCode.INVALID_BLOCK),  # of indefinite length
        (b"X #1zabc\nY\n", ErrorCode.INVALID_BLOCK),
        (b"X #9999999999\nY\n", ErrorCode.TOO_MUCH_DATA),
        (b"X" * 70_000 + b"\nY\n", ErrorCode.BUFFER_OVERRUN),
    ],
)
@pytest.mark.parametrize("cut", [2, 3, 6, 100])
def test_a_bad_message_is_one_error(data: bytes, code: ErrorCode, cut: int) -> None:
    error, after = fed(data, [len(data) - cut])
    assert isinstance(error, ScpiError)
    assert error.code == code
    assert after == [Call("Y", ())]


def test_a_block_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = MessageParser()
    assert parser.feed(b"X #210abc\n*IDN?\n") == []
    assert parser.stuck() is None
    monkeypatch.setattr(scpi, "BLOCK_PATIENCE_S", 0.0)
    error = parser.stuck()
    assert error is not None
    assert error.code == ErrorCode.INVALID_BLOCK
    assert parser.feed(b"Y\n") == [[Call("Y", ())]]


def test_the_oldest_errors_stay_when_the_queue_is_full() -> None:
    queue = ErrorQueue()
    for number in range(100):
        queue.put(ErrorCode.OUT_OF_RANGE, f"number {number}")
    reports = [parse_report(queue.take()) for _ in range(len(queue) + 1)]
    assert len(reports) == scpi.QUEUE_LENGTH + 1
    assert reports[0].text == "Data out of range;number 0"
    assert [r.code for r in reports[-2:]] == [ErrorCode.QUEUE_OVERFLOW, ErrorCode.NO_ERROR]


@pytest.mark.parametrize("text", ["abc", "nan", "1e31", "-1"])
def test_numbers_are_checked(text: str) -> None:
    with pytest.raises(ScpiError):
        Call("X", (text,)).number(0, 0.0)
