"""Nodes found in rendered frames whose truth is known, and every doubt refused."""

from __future__ import annotations

import numpy as np
import pytest

from hil.errors import MeasurementError
from hil.vision.markers import find_dots
from hil.vision.plane import Plane
from hil.vision.tracking import Tracker
from tests.unit.vision.bench import FRAME, GEOMETRY, MARKERS, Stand, camera, moved, tracker

Bench = tuple[Stand, Tracker]
NODES = GEOMETRY.nodes


@pytest.fixture(scope="module")
def registered() -> Bench:
    eye = camera()
    stand, found = Stand(eye), tracker(eye)
    found.register(stand.frames(count=64))
    return stand, found


@pytest.fixture
def bench(registered: Bench) -> Bench:
    """The camera where it was put up, the tracker as it was after its first sight."""
    stand, first = registered
    stand.restart()
    found = tracker(stand.eye)
    found.registration = first.registration
    return stand, found


def places(found: Tracker) -> np.ndarray:
    assert found.registration is not None
    return found.registration.nodes


def around(node: int, reach: float = 0.003) -> tuple[float, float, float, float]:
    x, y = NODES[node - 1]
    return (x - reach, y - reach, x + reach, y + reach)


def test_one_centre_in_one_frame_scatters_by_the_noise_that_was_asked_for(bench: Bench) -> None:
    stand, found = bench
    eye = stand.eye
    truth = eye.project(np.concatenate([NODES, FRAME]))
    dots = [find_dots(frame, MARKERS.radius / eye.metres, 20) for frame in stand.frames(count=40)]
    near = [d.centre[np.linalg.norm(d.centre - t, axis=1).argmin()] for d in dots for t in truth]
    off = np.array(near).reshape(40, -1, 2) - truth
    assert 0.09 < off.std(0).mean() < 0.11
    assert np.abs(off.mean(0)).max() < 5 * 0.1 / np.sqrt(40) + 0.02  # tilt: a disc is no ellipse
    assert found.registration is not None
    assert found.registration.noise == pytest.approx(off.std(0).mean(), rel=0.15)


def test_displacements_are_right_to_a_twentieth_of_a_pixel(bench: Bench) -> None:
    stand, found = bench
    random = np.random.default_rng(1)
    off = []
    for _ in range(8):
        truth = moved(random)
        sight = found.locate(stand.frames(truth), places(found) + 0.8 * truth)
        off.append(sight.nodes - places(found) - truth)
        assert sight.moved == 0.0
    assert found.registration is not None
    pixels = np.array(off) * found.registration.scale
    assert np.sqrt(np.mean(pixels**2)) < 0.05
    assert np.abs(pixels).max() < 0.2


def test_without_noise_and_with_the_true_lens_little_is_left() -> None:
    eye = camera(ideal=True)
    stand, found = Stand(eye), tracker(eye)
    seen = found.register(stand.frames(count=2))
    assert np.abs(seen.nodes - NODES).max() * seen.scale < 0.03
    truth = moved(np.random.default_rng(2))
    sight = found.locate(stand.frames(truth, count=2), seen.nodes + truth)
    assert np.abs(sight.nodes - seen.nodes - truth).max() * seen.scale < 0.03


def test_a_lost_marker_is_named(bench: Bench) -> None:
    stand, found = bench
    with pytest.raises(MeasurementError, match=r"marker of node 7 is not seen .* look again"):
        found.locate(stand.frames(hidden=[around(7)]), places(found))
    with pytest.raises(MeasurementError, match="marker of node 7, node 12 is not seen"):
        found.locate(stand.frames(hidden=[around(7), around(12)]), places(found))
    x, y = FRAME[2]
    thumb = (x - 0.004, y - 0.004, x + 0.004, y + 0.004)
    with pytest.raises(MeasurementError, match="marker of frame marker 3 is not seen"):
        found.locate(stand.frames(hidden=[thumb]), places(found))
    assert found.locate(stand.frames(), places(found)).moved == 0.0  # nothing was kept of it


def test_a_marker_that_is_partly_covered_is_named(bench: Bench) -> None:
    stand, found = bench
    x0, y0, x1, y1 = around(9)
    third = (x0, y0, x1 - 0.0035, y1)  # the left third of the dot
    with pytest.raises(MeasurementError, match=r"marker of node 9 is \d+% as bright"):
        found.locate(stand.frames(hidden=[third]), places(found))


def test_dimmer_light_is_no_cover(bench: Bench) -> None:
    stand, found = bench
    dim = [(0.8 * frame).astype(np.uint8) for frame in stand.frames()]
    sight = found.locate(dim, places(found))
    assert np.abs(sight.nodes - places(found)).max() < 5e-5


def test_markers_taken_for_each_other_are_noticed(bench: Bench) -> None:
    """A model that has two nodes in each other's place, as after a mix-up of strings."""
    stand, found = bench
    swapped = places(found).copy()
    swapped[[6, 7]] = swapped[[7, 6]]
    with pytest.raises(MeasurementError, match="taken for each other"):
        found.locate(stand.frames(), swapped)


def test_a_node_that_is_not_where_the_weights_put_it_is_named(bench: Bench) -> None:
    stand, found = bench
    far = np.zeros_like(NODES)
    far[13] = [0.0, -0.008]
    with pytest.raises(MeasurementError, match=r"node 14 is not seen within 6\.4 mm of"):
        found.locate(stand.frames(far), places(found))


@pytest.mark.parametrize(
    ("shift", "turn"),
    [((3e-4, -2e-4, 0.0), (0.0, 0.0, 0.003)), ((0.004, 0.003, 0.01), (0.01, -0.02, 0.05))],
    ids=["a nudge", "a blow"],
)
def test_a_bumped_camera_is_noticed_and_moves_no_node(
    bench: Bench, shift: tuple[float, float, float], turn: tuple[float, float, float]
) -> None:
    stand, found = bench
    truth = moved(np.random.default_rng(3))
    stand.eye.shift, stand.eye.turn = np.array(shift), np.array(turn)
    sight = found.locate(stand.frames(truth), places(found) + truth)
    assert sight.moved > 1.0
    assert found.registration is not None
    off = (sight.nodes - places(found) - truth) * found.registration.scale
    assert np.sqrt(np.mean(off**2)) < 0.06
    again = found.locate(stand.frames(truth), places(found) + truth)
    assert again.moved == 0.0  # told once


def test_a_reference_marker_that_was_moved_is_refused_by_name(bench: Bench) -> None:
    stand, found = bench
    bent = FRAME.copy()
    bent[1] += [4e-4, 0.0]
    with pytest.raises(MeasurementError, match=r"frame marker 2 is \d\.\d+ px from where the oth"):
        found.locate(stand.frames(frame=bent), places(found))
    slipped = np.zeros_like(NODES)
    slipped[4] = [0.0, -6e-4]
    with pytest.raises(MeasurementError, match=r"node 5 is \d\.\d+ px from where the oth"):
        found.locate(stand.frames(slipped), places(found) + slipped)


def test_an_image_without_markers_says_so(bench: Bench) -> None:
    stand, found = bench
    whole = (-1.0, -1.0, 1.0, 1.0)
    with pytest.raises(MeasurementError, match=r"0 markers are in view, .*check light"):
        found.register(stand.frames(count=8, hidden=[whole]))


def test_a_plane_goes_both_ways() -> None:
    random = np.random.default_rng(4)
    metres = random.uniform(0, 0.06, (9, 2))
    turn = np.array([[4000.0, 300.0, 100.0], [-200.0, -4100.0, 400.0], [0.5, -0.7, 1.0]])
    ahead = np.column_stack([metres, np.ones(9)]) @ turn.T
    pixels = ahead[:, :2] / ahead[:, 2:]
    plane = Plane.fit(pixels, metres)
    np.testing.assert_allclose(plane.metres(pixels), metres, atol=2e-8)
    np.testing.assert_allclose(plane.pixels(metres), pixels, atol=1e-3)
