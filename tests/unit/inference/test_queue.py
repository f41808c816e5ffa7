"""Who is computed when, with explicit times: nothing here waits."""

from __future__ import annotations

import random

import numpy as np
import pytest

from hil.errors import InputError
from hil.inference.queue import NEVER, SLACK, BatchQueue, Pending, QueueLimits
from hil.inference.settings import SwapSettings
from hil.inference.shadow import Shadow
from hil.models.operation import Asked, Field, Operation

OPERATION = Operation("f", (Field("x", (2,)),), (Field("y", ()),), lambda x: [x.sum(1)])
OTHER = Operation("g", (Field("x", (2,)),), (Field("y", ()),), lambda x: [x.sum(1)])


def queue(size: int = 4, delay: int = 0, most: int = 8, **sizes: int) -> BatchQueue:
    return BatchQueue(QueueLimits(size, delay, most, 1000, sizes))


def request(
    at: int = 0, *, rows: int = 1, priority: int = 5, deadline: int = NEVER,
    operation: Operation = OPERATION, action: str = "reject", nbytes: int = 10,
) -> Pending:  # fmt: skip
    return Pending(
        operation, Asked(rows, ()), [], nbytes, priority, at, deadline, action,  # type: ignore[arg-type]
    )  # fmt: skip


def offered(q: BatchQueue, *requests: Pending) -> list[Pending]:
    assert all(q.offer(r) for r in requests)
    return list(requests)


def test_without_delay_what_waits_goes_at_once_and_together() -> None:
    q = queue()
    found = offered(q, request(), request(), request())
    assert q.next_ns() == 0
    assert q.take(0) == found
    assert len(q) == 0
    assert q.next_ns() == NEVER


def test_a_batch_closes_when_its_oldest_has_waited() -> None:
    q = queue(delay=100)
    first, second = offered(q, request(10), request(50))
    assert q.next_ns() == 110
    assert q.take(109) == []
    assert q.take(110) == [first, second]


def test_a_full_batch_does_not_wait() -> None:
    q = queue(size=2, delay=100)
    found = offered(q, request(0), request(0))
    assert q.take(0) == found


def test_a_batch_closes_in_time_for_its_earliest_deadline() -> None:
    q = queue(delay=1000)
    early = request(0, deadline=500)
    q.took(early.key, 200)
    offered(q, request(0), early)
    assert q.next_ns() == 300
    assert q.take(299) == []
    assert len(q.take(300)) == 2


def test_order_is_priority_then_deadline_then_arrival() -> None:
    q = queue(size=2)
    low, late, early, urgent = offered(
        q, request(), request(deadline=900), request(deadline=800), request(priority=1)
    )
    assert q.take(0) == [urgent, early]
    assert q.take(0) == [late, low]


def test_only_what_can_be_computed_together_goes_together() -> None:
    q = queue()
    one, other, again = offered(q, request(), request(operation=OTHER), request())
    assert q.take(0) == [one, again]
    assert q.take(0) == [other]


def test_rows_and_bytes_bound_a_batch_and_a_large_request_is_one_by_itself() -> None:
    q = queue(g=100)
    a, b, c, d = offered(
        q, request(rows=3), request(rows=2), request(rows=9), request(nbytes=999, rows=1)
    )
    assert [q.take(0) for _ in range(4)] == [[a], [b], [c], [d]]
    wide = offered(q, *(request(rows=50, operation=OTHER) for _ in range(2)))
    assert q.take(0) == wide


def test_late_ones_are_told_and_not_computed() -> None:
    q = queue()
    late, good = offered(q, request(deadline=100), request(deadline=101))
    assert q.next_ns() == 0
    assert q.late_ns() == 100
    assert q.expire(100) == [late]
    assert q.take(100) == [good]
    assert q.expire(1000) == []


def test_delayed_ones_are_computed_after_all_that_is_in_time() -> None:
    q = queue(size=1)
    delayed, good = offered(q, request(deadline=100, action="delay"), request(priority=9))
    assert q.expire(100) == []
    assert [q.take(100), q.take(100)] == [[good], [delayed]]


def test_every_priority_has_its_own_bound() -> None:
    q = queue(most=2)
    offered(q, request(), request(), request(priority=1))
    assert not q.offer(request())
    assert q.offer(request(priority=1))
    assert not q.offer(request(priority=1))


def test_full_only_leaves_what_could_grow() -> None:
    q = queue(size=2)
    offered(q, request())
    assert q.take(0, full_only=True) == []
    offered(q, request())
    assert len(q.take(0, full_only=True)) == 2


def test_what_is_sent_ahead_does_not_keep_the_worker_from_what_is_urgent() -> None:
    q = queue(size=2)
    offered(q, *(request(priority=9) for _ in range(4)))
    (urgent,) = offered(q, request(priority=1, operation=OTHER))
    assert q.take(0, full_only=True) == []
    assert q.take(0) == [urgent]
    assert len(q.take(0, full_only=True)) == 2


def test_what_a_worker_died_of_is_computed_alone() -> None:
    q = queue()
    suspect = request()
    suspect.attempts, suspect.waiting = 1, False
    before, after = request(priority=1), request(priority=9)
    q.offer(before)
    q.put_back(suspect)
    q.offer(after)
    assert [q.take(0) for _ in range(3)] == [[before], [suspect], [after]]


def test_nothing_is_lost_or_doubled_and_memory_is_bounded() -> None:
    """Random traffic, far more than is taken: each request comes out once, one way."""
    chance = random.Random(1)
    q, now, out, refused, offers = queue(size=3, delay=20, most=50), 0, [], 0, 0
    for _ in range(5000):
        now += chance.randrange(10)
        offers += 1
        deadline = NEVER if chance.random() < 0.2 else now + chance.randrange(1, 2000)
        one = request(
            now, rows=chance.randrange(1, 4), priority=chance.randrange(1, 10), deadline=deadline,
            operation=chance.choice([OPERATION, OTHER]),
            action=chance.choice(["reject", "delay"]),
        )  # fmt: skip
        refused += not q.offer(one)
        late = q.expire(now)
        assert all(r.deadline_ns <= now for r in late)
        out += late
        if chance.random() < 0.3:
            batch = q.take(now)
            assert len({r.key for r in batch}) <= 1
            assert sum(r.asked.rows for r in batch) <= 3 or len(batch) == 1
            out += batch
        held = sum(map(len, q._by_key.values())) + len(q._by_deadline)
        assert held <= 3 * (2 * len(q) + SLACK + 1)
    out += q.drain()
    assert len(set(map(id, out))) == len(out) == offers - refused


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ([], "expected x, found 0 arrays"),
        ([np.zeros(2)], r"x: expected \(rows, 2\), found \(2,\)"),
        ([np.zeros((3, 3))], r"found \(3, 3\)"),
        ([np.zeros((0, 2))], r"found \(0, 2\)"),
        ([np.zeros((1, 2), dtype=np.int64)], "expected float32 or float64, found int64"),
        ([np.array([[0.0, np.nan]])], r"x: nan at \[0, 1\]"),
        ([np.array([[np.inf, 0.0]], dtype=np.float32)], r"x: inf at \[0, 0\]"),
    ],
)
def test_what_does_not_fit_is_named(arrays: list[np.ndarray], said: str) -> None:
    with pytest.raises(InputError, match=said):
        OPERATION.fit(arrays)


def test_one_row_counts_for_all_and_free_sizes_agree() -> None:
    f = Operation("r", (Field("x", (2,)), Field("u", ("N", 1))), (Field("y", ("N", 2)),), min)
    assert f.fit([np.zeros((1, 2)), np.zeros((5, 7, 1))]) == Asked(5, (("N", 7),))
    with pytest.raises(InputError, match="of 5 rows"):
        f.fit([np.zeros((5, 2)), np.zeros((4, 7, 1))])
    given, wanted, size = f.places(Asked(5, (("N", 7),)), 8)
    assert [p.shape for p in (*given, *wanted)] == [(5, 2), (5, 7, 1), (5, 7, 2)]
    assert wanted[0].offset >= given[1].offset + 5 * 7 * 8
    assert size >= wanted[0].offset + 5 * 7 * 2 * 8


def shadow(**rule: float) -> Shadow:
    return Shadow(SwapSettings(batches=2, **rule), until_ns=100)


def test_a_shadow_run_decides_by_its_rule() -> None:
    old = np.ones((4, 2))
    good = shadow(deviation=0.1, slowdown=2.0)
    good.add(["y"], [old], [old * 1.05], 1.5)
    assert good.verdict(0) is None
    good.add(["y"], [old], [old * 1.05], 1.5)
    assert good.verdict(0) == (True, "2 batches compared")
    assert good.deviation == pytest.approx(0.05)
    for off, slow, said in ((1.2, 1.0, "deviation 0.2"), (1.0, 3.0, "slowdown 3")):
        bad = shadow(deviation=0.1, slowdown=2.0)
        for _ in range(2):
            bad.add(["y"], [old], [old * off], slow)
        verdict = bad.verdict(0)
        assert verdict is not None
        assert not verdict[0]
        assert said in verdict[1]
    idle = shadow()
    assert idle.verdict(100) == (False, "0 of 2 batches within 60 s")
    broken = shadow()
    broken.add(["y"], [old], [old * np.nan], 1.0)
    assert broken.verdict(0) == (
        False, "y: the candidate's answer is not finite, the present one is",
    )  # fmt: skip
