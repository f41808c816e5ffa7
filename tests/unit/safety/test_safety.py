"""Lease, deadman and limits, each by itself."""

from __future__ import annotations

import pytest

from hil.errors import DeadmanError, FaultError, LeaseError, StateError
from hil.rigs.base import Lifecycle, RigState, Token
from hil.safety.deadman import Forwarded, Minting
from hil.safety.lease import LeaseDesk


def test_one_client_commands_and_the_refusal_names_it() -> None:
    desk = LeaseDesk("rig", 10.0)
    lease = desk.acquire("trainer-1", now=0.0)
    desk.check(lease, "settle", now=9.0)
    with pytest.raises(LeaseError, match=r"trainer-1 holds the lease for another 9\.0 s"):
        desk.acquire("trainer-2", now=10.0)
    with pytest.raises(LeaseError, match="settle needs the lease; trainer-1 holds it"):
        desk.check("guess", "settle", now=10.0)


def test_a_lease_expires_and_an_old_one_is_worth_nothing() -> None:
    desk = LeaseDesk("rig", 10.0)
    old = desk.acquire("trainer-1", now=0.0)
    assert not desk.expire(9.99)
    assert desk.expire(10.0)
    assert not desk.expire(10.1)
    new = desk.acquire("trainer-2", now=11.0)
    with pytest.raises(LeaseError):
        desk.check(old, "settle", now=11.0)
    desk.check(new, "settle", now=11.0)
    desk.release()
    with pytest.raises(LeaseError, match="has expired or was given back"):
        desk.check(new, "settle", now=11.0)
    with pytest.raises(LeaseError):
        desk.check("", "settle", now=11.0)


def test_tokens_grow_and_are_used_once() -> None:
    minting = Minting(250_000)
    first, second = minting.take(1_000), minting.take(2_000)
    assert (first.valid_until_us, second.valid_until_us) == (251_000, 252_000)
    assert second.sequence > first.sequence
    forwarded = Forwarded()
    with pytest.raises(DeadmanError):
        forwarded.take(0)
    forwarded.put(Token(1, 5))
    assert forwarded.take(0) == Token(1, 5)
    with pytest.raises(DeadmanError):
        forwarded.take(0)


def test_calls_out_of_order_name_the_state_and_the_way() -> None:
    life = Lifecycle("rig")
    with pytest.raises(StateError, match=r"is unconfigured; call configure\(\) first"):
        life.require("settle", RigState.ACTIVE)
    life.state = RigState.INACTIVE
    with pytest.raises(StateError, match=r"needs the state active.*call activate\(\) first"):
        life.require("settle", RigState.ACTIVE)
    life.latch("cable pulled")
    life.latch("something later")
    with pytest.raises(FaultError, match=r"cable pulled.*call clear\(\)"):
        life.require("settle", RigState.ACTIVE)
    life.cleared()
    assert life.state is RigState.INACTIVE
    assert life.fault == ""
