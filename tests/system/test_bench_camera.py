"""A network trained on Iris elsewhere still tells flowers apart when a camera reads it."""

from __future__ import annotations

from tests.system.test_bench_gyro import report


def test_displacements_and_flowers_are_read_at_a_tenth_of_a_pixel() -> None:
    found = report(
        "bench_camera.py", "--cases", "2", "--noises", "0.1", "--frames", "16",
        "--flowers", "30", "--epochs", "60",
    )  # fmt: skip
    assert found["displacement_error_px"]["16"]["0.1"] < 0.05
    assert found["lens_rms_px"] < 0.15
    iris = found["iris"]
    assert (iris["flowers"], iris["noise_px"]) == (30, 0.1)
    assert iris["accuracy_model"] > 0.85
    assert iris["accuracy_camera"] > iris["accuracy_model"] - 0.08
    assert iris["same_answer_as_model"] > 0.9
