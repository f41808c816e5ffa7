"""The check of the gradient: what it looks at, what it finds, what it leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hil.errors import InputError, RunError
from hil.training.events import EpochDone
from hil.training.gradient_check import (
    Differences,
    GradientCheckSettings,
    compare,
    differences,
    draw,
)
from hil.training.gradients.separate import local_gradient
from hil.training.state import Agreement
from hil.types import Array
from tests.unit.training.parts import ExactRig, parts

P = parts(seed=1)
BATCH = P.task.train[:16]
BONDS = np.array([0, 7, 13, 27])
STIFFNESS = np.random.default_rng(7).uniform(100.0, 175.0, 28)


def set_to(rig: Any, stiffness: Array = STIFFNESS) -> Any:
    rig.set_stiffness(stiffness)
    return rig


def test_differences_agree_with_the_gradient_in_place() -> None:
    rig = set_to(ExactRig(P.network))
    quotients = differences(rig, P.task, BATCH, BONDS, step=0.05)
    products = local_gradient(rig.settle, P.task, BATCH, 0.1).products
    assert quotients.smooth.mean() > 0.9
    assert np.allclose(
        quotients.slopes[quotients.smooth], products[:, BONDS][quotients.smooth], rtol=1e-3
    )
    found = compare(products, quotients, BONDS)
    agreement = Agreement().add(found.measured, found.expected)
    assert agreement.cosine == pytest.approx(1.0, abs=1e-9)
    assert agreement.relative_error is not None
    assert agreement.relative_error < 1e-4


def test_the_stiffness_is_afterwards_what_it_was() -> None:
    rig = P.rig()  # 12 bits
    before = rig.set_stiffness(STIFFNESS)
    differences(rig, P.task, BATCH[:2], BONDS, step=4.0)
    assert rig.read_stiffness().tobytes() == before.tobytes()


def test_the_quotient_is_over_what_was_applied() -> None:
    fine, coarse = ExactRig(P.network), ExactRig(P.network, level=2.0)
    start = np.full(28, 140.0)
    slopes = [
        differences(rig, P.task, BATCH, BONDS, step).slopes
        for rig, step in ((set_to(fine, start), 2.0), (set_to(coarse, start), 1.3))
    ]
    assert np.allclose(slopes[0], slopes[1], rtol=1e-12)


def test_samples_at_a_kink_are_left_out_of_both_sides() -> None:
    products = np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]])
    slopes = np.array([[1.5, 0.0], [0.0, 0.0]])
    quotients = Differences(slopes, smooth=np.array([[True, False], [False, False]]))
    found = compare(products, quotients, np.array([0, 2]))
    assert found.bonds.tolist() == [0]
    assert found.measured.tolist() == [1.0]
    assert found.expected.tolist() == [1.5]


def test_a_sample_whose_output_passes_zero_is_not_smooth() -> None:
    # Find, by bisection, where an output of a sample changes its sign with one bond.
    dof = [P.network.geometry.dof(node, 0) for node in P.task.outputs]

    def outputs(k7: float) -> Array:
        k = STIFFNESS.copy()
        k[7] = k7
        return P.network.settle(k, P.task.loads(P.task.train)).displacement[:, dof]

    changes = np.argwhere(np.sign(outputs(90.0)) != np.sign(outputs(185.0)))
    assert len(changes)
    sample, output = changes[0]
    low, high = 90.0, 185.0
    for _ in range(60):
        middle = (low + high) / 2
        same = np.sign(outputs(middle)[sample, output]) == np.sign(outputs(low)[sample, output])
        low, high = (middle, high) if same else (low, middle)
    at_kink = STIFFNESS.copy()
    at_kink[7] = low
    rig = set_to(ExactRig(P.network), at_kink)
    batch = P.task.train[sample : sample + 1]
    found = differences(rig, P.task, batch, np.array([7]), 0.5)
    assert not found.smooth.any()


def test_a_step_the_actuators_cannot_make_is_refused() -> None:
    rig = set_to(ExactRig(P.network, level=10.0), np.full(28, 140.0))
    with pytest.raises(InputError, match=r"check\.step: bond 1 stayed at 140\.0 N/m"):
        differences(rig, P.task, BATCH, BONDS, step=1.0)


def test_an_actuator_that_does_not_come_back_is_named() -> None:
    class Creeping(ExactRig):
        def set_stiffness(self, stiffness: Array) -> Array:
            applied = super().set_stiffness(stiffness)
            self.stiffness[3] += 0.25
            return applied

    rig = Creeping(P.network)
    with pytest.raises(RunError, match=r"gradient check: bond 4 was at .* check the actuator"):
        differences(rig, P.task, BATCH, BONDS, step=1.0)


def test_what_is_looked_at_is_a_function_of_seed_and_epoch() -> None:
    settings = GradientCheckSettings(batch=16, bonds=6)
    first = draw(settings, P.task.train, 28, seed=3, epoch=20)
    again = draw(settings, P.task.train, 28, seed=3, epoch=20)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (
        draw(settings, P.task.train, 28, seed=4, epoch=20),
        draw(settings, P.task.train, 28, seed=3, epoch=21),
    ):
        assert not np.array_equal(first[0], other[0])
    assert set(first[0]) <= set(P.task.train)
    assert len(set(first[0])) == 16
    assert len(set(first[1])) == 6


def test_fewer_samples_and_bonds_than_asked_for() -> None:
    settings = GradientCheckSettings(batch=100, bonds=100)
    samples, bonds = draw(settings, BATCH, 28, seed=0, epoch=0)
    assert np.array_equal(np.sort(samples), np.sort(BATCH))
    assert bonds.tolist() == list(range(28))


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [(20, 50, [1, 20, 40, 50]), (0, 5, []), (1, 3, [1, 2, 3]), (99, 3, [1, 3])],
)
def test_when_a_check_is_due(every: int, epochs: int, expected: list[int]) -> None:
    settings = GradientCheckSettings(every=every)
    assert [e for e in range(1, epochs + 1) if settings.due(e, epochs)] == expected


def test_pooled_agreement_is_that_of_all_pairs_together() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    pooled = Agreement().add(a[:20], b[:20]).add(a[20:], b[20:])
    whole = Agreement().add(a, b)
    assert pooled.pairs == whole.pairs == 50
    assert pooled.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert pooled.relative_error == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b))
    assert Agreement().cosine is None
    assert Agreement().relative_error is None


def test_a_run_reports_both_references_and_trains_as_if_it_had_not() -> None:
    checked = parts(training__epochs=2, training__check__every=1, training__check__step=0.1)
    unchecked = parts(training__epochs=2, training__check__every=0)
    ends = []
    for p in (checked, unchecked):
        *_, last = p.training.run(ExactRig(p.network), p.task)
        assert isinstance(last, EpochDone)
        ends.append(last)
    assert np.array_equal(ends[0].state.applied, ends[1].state.applied)
    assert [c.reference for c in ends[0].checks] == ["model", "differences"]
    assert ends[0].state.model.pairs == 2 * 28
    assert ends[0].state.model.cosine == pytest.approx(1.0, abs=1e-12)
    assert ends[0].state.differences.cosine == pytest.approx(1.0, abs=1e-9)
    assert not ends[1].checks
    assert ends[1].state.model.cosine is None
