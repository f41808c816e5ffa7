"""Vehicle with four degrees of freedom, driven by throttle α and steering δ.

State x = (x, y, θ, v): place in m, heading in rad, speed in m/s. Input u = (α, δ), 1.

    ẋ = v cos θ,  ẏ = v sin θ,  θ̇ = v tan(βδ) / l,  v̇ = 2 T γ R / I
    T = α (τ0 − τ0 ω / ω0) − c1 ω − c0,  ω = v / (R γ)

Wang, Wang, Negrut, "FNODE: Flow-Matching for data-driven simulation of constrained multibody
systems", arXiv 2509.00183; the ranges of the nine parameters are theirs. The drag c0 has the
same sign at every speed, as published: without throttle the vehicle ends at v = −c0 R γ / c1,
a few centimetres a second backwards.

While the input is held, v̇ = a − b v is linear: speed and heading are stepped exactly, and the
place by Gauss's three-point rule over the exact speed and heading.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hil.compiled import threaded
from hil.errors import MechanicsError
from hil.types import AnyArray, Array


class Parameter(NamedTuple):
    """One of the nine numbers of a vehicle: its published range, unit and meaning."""

    name: str
    low: float
    high: float
    unit: str
    meaning: str


PARAMETERS = (
    Parameter("wheelbase", 2.7, 2.9, "m", "l"),
    Parameter("steering_gain", 0.60, 0.75, "rad", "β, wheel angle at δ = 1"),
    Parameter("gear_ratio", 0.15, 0.25, "1", "γ"),
    Parameter("wheel_inertia", 0.9, 1.3, "kg·m²", "I_wheel"),
    Parameter("wheel_radius", 0.32, 0.35, "m", "R_wheel"),
    Parameter("drag", 0.015, 0.025, "N·m", "c0"),
    Parameter("drag_per_speed", 0.025, 0.045, "N·m·s/rad", "c1"),
    Parameter("motor_torque", 250.0, 350.0, "N·m", "τ0, at standstill"),
    Parameter("motor_speed", 1200.0, 1500.0, "rad/s", "ω0, where the motor's torque ends"),
)
STATES = {"x": "m", "y": "m", "heading": "rad", "speed": "m/s"}
INPUTS = {"throttle": "1", "steering": "1"}
# Gauss-Legendre on [0, 1], three points.
_NODES = (0.5 - np.sqrt(0.15), 0.5, 0.5 + np.sqrt(0.15))
_WEIGHTS = (5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0)


def middle() -> Array:
    """Return the parameters in the middle of their ranges, (9,), in the order of PARAMETERS."""
    return np.array([(p.low + p.high) / 2 for p in PARAMETERS])


def levels(count: int) -> Array:
    """Return `count` values of every parameter over its range, both ends in it, (9, count)."""
    return np.array([np.linspace(p.low, p.high, count) for p in PARAMETERS])


def slope(parameters: AnyArray, state: AnyArray, inputs: AnyArray) -> AnyArray:
    """Return (ẋ, ẏ, θ̇, v̇), (…, 4).

    parameters: (…, 9). state: (…, 4). inputs: (…, 2). The leading dimensions broadcast.
    """
    wheelbase, gain, gear, inertia, radius, drag, drag_per_speed, torque, top = np.moveaxis(
        parameters, -1, 0
    )
    _, _, heading, speed = np.moveaxis(state, -1, 0)
    throttle, steering = np.moveaxis(inputs, -1, 0)
    motor = speed / (radius * gear)  # ω, rad/s
    drive_torque = throttle * (torque - torque / top * motor) - drag_per_speed * motor - drag
    return np.stack(
        np.broadcast_arrays(
            speed * np.cos(heading),
            speed * np.sin(heading),
            speed * np.tan(gain * steering) / wheelbase,
            2.0 * drive_torque * gear * radius / inertia,
        ),
        axis=-1,
    )


def terminal_speed(parameters: AnyArray, throttle: Any) -> Any:
    """Return the speed at which a throttle no longer accelerates, (…), m/s.

    parameters: (…, 9). throttle: (…), 1.
    """
    _, _, gear, _, radius, drag, drag_per_speed, torque, top = np.moveaxis(parameters, -1, 0)
    motor = (throttle * torque - drag) / (throttle * torque / top + drag_per_speed)
    return motor * radius * gear


def drive(parameters: Array, start: Array, inputs: Array, dt: float) -> Array:
    """Return the states (vehicles, steps + 1, 4) of vehicles under inputs held for dt in s.

    parameters: (vehicles, 9). start: (vehicles, 4). inputs: (vehicles, steps, 2).
    Every vehicle is computed by itself: its numbers do not depend on the others. Speed and
    heading are exact, the place is of sixth order in dt.
    Raises MechanicsError for shapes that do not fit, parameters that are not above zero, a
    throttle below zero or wheels that stand across.
    """
    parameters, start, inputs = (
        np.ascontiguousarray(array, np.float64) for array in (parameters, start, inputs)
    )
    count = len(parameters)
    if (
        parameters.shape != (count, len(PARAMETERS))
        or start.shape != (count, len(STATES))
        or inputs.ndim != 3
        or inputs.shape[::2] != (count, len(INPUTS))
    ):
        raise MechanicsError(
            "vehicle: expected parameters (vehicles, 9), start (vehicles, 4) and inputs "
            f"(vehicles, steps, 2), found {parameters.shape}, {start.shape} and {inputs.shape}"
        )
    if not (parameters > 0.0).all():
        row, column = np.argwhere(~(parameters > 0.0))[0]
        raise MechanicsError(
            f"vehicle {row}: {PARAMETERS[column].name} must be above zero, found "
            f"{parameters[row, column]}"
        )
    across = np.abs(parameters[:, None, 1] * inputs[..., 1]) < np.pi / 2
    if not ((inputs[..., 0] >= 0.0) & across).all():
        raise MechanicsError(
            "vehicle: throttle must not be below zero, and |steering_gain · steering| stay "
            "below π/2; check the ranges of the inputs"
        )
    states = np.empty((count, inputs.shape[1] + 1, len(STATES)))
    _drive(parameters, start, inputs, dt, states)
    return states


@threaded
def _drive(parameters: Array, start: Array, inputs: Array, dt: float, states: Array) -> None:
    for i in range(len(parameters)):
        wheelbase, gain, gear, inertia, radius, drag, per_speed, torque, top = parameters[i]
        x, y, heading, speed = start[i]
        states[i, 0] = start[i]
        for k in range(inputs.shape[1]):
            throttle = inputs[i, k, 0]
            curvature = np.tan(gain * inputs[i, k, 1]) / wheelbase
            a = 2.0 * gear * radius / inertia * (throttle * torque - drag)  # v̇ = a − b v
            b = 2.0 / inertia * (throttle * torque / top + per_speed)
            now = a - b * speed  # v̇ at the start of the step
            for node in range(3):
                time = _NODES[node] * dt
                eased = -np.expm1(-b * time) / b  # ∫ exp(−b t) dt
                distance = speed * time + now * (time - eased) / b
                reached = (speed + now * eased) * _WEIGHTS[node] * dt
                x += reached * np.cos(heading + curvature * distance)
                y += reached * np.sin(heading + curvature * distance)
            eased = -np.expm1(-b * dt) / b
            heading += curvature * (speed * dt + now * (dt - eased) / b)
            speed += now * eased
            states[i, k + 1, 0] = x
            states[i, k + 1, 1] = y
            states[i, k + 1, 2] = heading
            states[i, k + 1, 3] = speed
