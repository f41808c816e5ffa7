"""Motion of a cart-pole with dry friction and end stops, from event to event.

Dry friction is Coulomb's law as a set: a coordinate in motion is opposed by a constant
force, one at rest by whatever force, up to the breakaway force, keeps it there. A stop
holds a cart at rest in one direction with any force; a cart that runs into it leaves
with `restitution` times its speed, and the pole keeps its momentum about the pivot.

Between events the equations are smooth. An event (a velocity reaches zero, a holding
force its bound, the cart a stop) is located in time and the motion goes on from there in
another mode: nothing is regularised, so nothing creeps or chatters. Which mode, Gauss'
principle decides: for a constant friction force the accelerations are unique.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from hil.errors import MechanicsError
from hil.mechanics.cart_pole import CartPoleParameters, accelerations, inverse_mass
from hil.mechanics.cart_pole_steps import constants, free_step, free_steps
from hil.mechanics.parameters import checked
from hil.types import Array

REST_SPEED = 1e-3  # m/s, a rebound slower than this is none: bounces would never end
EVENTS = 32  # in one step; after them it is cut short, see `step`
LOCATED = 1e-9  # of how far an event was overrun, and of the step


class CartPoleState(NamedTuple):
    """Where a cart-pole is; a velocity of exactly zero is at rest and may be held."""

    theta: float  # rad, from upright
    x: float  # m
    theta_dot: float  # rad/s
    x_dot: float  # m/s


class _Mode(NamedTuple):
    """0 held, 1 and -1 moving that way."""

    pivot: int
    cart: int


class _Events(NamedTuple):
    """By how much each kind of event is overrun, in the unit of what it watches."""

    pivot_stops: float
    cart_stops: float
    right: float
    left: float
    pivot_breaks_away: float
    cart_breaks_away: float


class CartPoleMotion:
    """Steps one cart-pole through time in numbers, fast enough for a plant at 1 kHz.

    It keeps nothing between steps: the state is all there is. Raises MechanicsError for
    parameters out of range.
    """

    def __init__(self, parameters: CartPoleParameters | None = None) -> None:
        self.parameters = p = checked(parameters or CartPoleParameters(), "cart-pole")
        self._lo, self._hi = p.stops or (-math.inf, math.inf)
        self._swing = p.pole_mass * p.length
        self._constants = constants(p)

    def step(self, state: CartPoleState, u: float, dt: float) -> CartPoleState:
        """Return the state after dt in s, the force u in N on the cart held.

        One Runge-Kutta step of fourth order from event to event. A velocity that passes
        zero twice within dt is not seen: keep dt far below a swing. After 32 events in one
        step, bounces end and what rests stays at rest to its end. Raises MechanicsError for
        a cart beyond its stops and for what is not finite or does not stay so.
        """
        if not math.isfinite(sum(state) + u):
            raise MechanicsError(f"cart-pole: {tuple(state)} under {u} N is not finite")
        if not self._lo <= state.x <= self._hi:
            raise MechanicsError(
                f"cart-pole: the cart is at {state.x} m, beyond its stops at {self._lo} and "
                f"{self._hi} m; start between them"
            )
        try:
            return self._travel(state, u, dt)
        except (ValueError, OverflowError):  # of a sine or a sum that overflows
            raise MechanicsError(
                f"cart-pole: {tuple(state)} under {u} N leads out of all numbers within {dt} s; "
                "take shorter steps"
            ) from None

    def glide(self, state: CartPoleState, u: Array, dt: float) -> Array:
        """Return the states after steps of dt in s, (steps, 4), as far as they are smooth.

        u: (n,), N, each held over its step. To the bit what `step` gives, in one compiled
        call; fewer than n, or none, where an event is near: `step` goes on from there.
        """
        theta, x, omega, speed = state
        return free_steps(self._constants, (theta, x, omega, speed), u, dt)

    def prepare(self) -> None:
        """Load the compiled steps now: it takes a fifth of a second."""
        still = CartPoleState(0.0, 0.5 * (max(self._lo, -1.0) + min(self._hi, 1.0)), 1.0, 1.0)
        self._advance_free(still, _Mode(1, 1), 0.0, 1e-6)
        self.glide(still, np.zeros(1), 1e-6)

    def strike(self, state: CartPoleState, *, cart: float = 0.0, tip: float = 0.0) -> CartPoleState:
        """Return the state right after horizontal impulses on the cart and the mass, N·s.

        Friction and gravity are bounded and have no part in it; a stop the cart is struck
        against acts in the next step.
        """
        p = self.parameters
        theta, x, omega, speed = state
        sine, cosine = math.sin(theta), math.cos(theta)
        turn, push = inverse_mass(p, sine, cosine, tip * p.length * cosine, cart + tip)
        return CartPoleState(theta, x, omega + turn, speed + push)

    def _travel(self, state: CartPoleState, u: float, dt: float) -> CartPoleState:
        """Return the state after dt, one event after the other."""
        for event in range(2 * EVENTS):
            calm = event >= EVENTS
            state = self._rebound(state, inelastic=calm)
            mode = self._mode(state, u, calm)
            after = self._advance(state, mode, u, dt)
            events = self._events(after, mode, u, calm)
            if max(events) <= 0.0:
                return after
            taken, state = self._locate(state, mode, u, dt, events, calm)
            dt -= taken
        raise MechanicsError(
            f"cart-pole: more than {2 * EVENTS} events from {tuple(state)} under {u} N; "
            "take shorter steps"
        )

    def _slopes(
        self, mode: _Mode, u: float, theta: float, omega: float, speed: float
    ) -> tuple[float, float]:
        """Return (θ̈, ẍ) in a mode."""
        p = self.parameters
        torque = -p.pivot_viscous * omega - p.pivot_coulomb * mode.pivot
        force = u - p.cart_viscous * speed - p.cart_coulomb * mode.cart
        if mode.pivot == 0:
            return 0.0, force / (p.cart_mass + p.pole_mass) if mode.cart else 0.0
        sine = math.sin(theta)
        if mode.cart == 0:
            return (torque / self._swing + p.gravity * sine) / p.length, 0.0
        turn, push = accelerations(p, sine, math.cos(theta), omega, torque, force)
        return turn, push

    def _advance(self, state: CartPoleState, mode: _Mode, u: float, h: float) -> CartPoleState:
        """Return the state one Runge-Kutta step on, whatever happens in between."""
        if mode.pivot and mode.cart:
            return self._advance_free(state, mode, u, h)
        theta, x, omega, speed = state
        half = 0.5 * h
        a1, b1 = self._slopes(mode, u, theta, omega, speed)
        omega2, speed2 = omega + half * a1, speed + half * b1
        a2, b2 = self._slopes(mode, u, theta + half * omega, omega2, speed2)
        omega3, speed3 = omega + half * a2, speed + half * b2
        a3, b3 = self._slopes(mode, u, theta + half * omega2, omega3, speed3)
        omega4, speed4 = omega + h * a3, speed + h * b3
        a4, b4 = self._slopes(mode, u, theta + h * omega3, omega4, speed4)
        sixth = h / 6.0
        return CartPoleState(
            theta + sixth * (omega + 2.0 * (omega2 + omega3) + omega4),
            x + sixth * (speed + 2.0 * (speed2 + speed3) + speed4),
            omega + sixth * (a1 + 2.0 * (a2 + a3) + a4),
            speed + sixth * (b1 + 2.0 * (b2 + b3) + b4),
        )

    def _advance_free(self, state: CartPoleState, mode: _Mode, u: float, h: float) -> CartPoleState:
        """Return the same where nothing is held: nearly every step."""
        after = CartPoleState(*free_step(self._constants, *mode, u, h, *state))
        if not math.isfinite(sum(after)):
            raise OverflowError
        return after

    def _held(self, state: CartPoleState, mode: _Mode, u: float) -> tuple[float, float]:
        """Return by how much the forces that hold pivot and cart exceed their bounds."""
        p = self.parameters
        theta, x, omega, speed = state
        turn, push = self._slopes(mode, u, theta, omega, speed)
        sine, cosine = math.sin(theta), math.cos(theta)
        pivot = cart = -math.inf
        if mode.pivot == 0:
            torque = self._swing * (cosine * push - p.gravity * sine)
            pivot = abs(torque) - p.breakaway * p.pivot_coulomb
        if mode.cart == 0:
            force = self._swing * (cosine * turn - sine * omega * omega) - u
            bound = p.breakaway * p.cart_coulomb
            above = -math.inf if x <= self._lo else force - bound
            below = -math.inf if x >= self._hi else -force - bound
            cart = max(above, below)
        return pivot, cart

    def _events(self, state: CartPoleState, mode: _Mode, u: float, calm: bool) -> _Events:
        """Return how far each kind of event is overrun; above zero it has happened."""
        p = self.parameters
        never = -math.inf
        pivot = -mode.pivot * state.theta_dot if mode.pivot and p.pivot_coulomb else never
        cart = -mode.cart * state.x_dot if mode.cart and p.cart_coulomb else never
        right, left = state.x - self._hi, self._lo - state.x
        if calm or (mode.pivot and mode.cart):
            return _Events(pivot, cart, right, left, never, never)
        return _Events(pivot, cart, right, left, *self._held(state, mode, u))

    def _locate(
        self, state: CartPoleState, mode: _Mode, u: float, h: float, events: _Events, calm: bool
    ) -> tuple[float, CartPoleState]:
        """Return when within h the first event happens and the state right after it."""
        early, late, overrun = 0.0, h, max(events)
        close, shortest = LOCATED * overrun, LOCATED * h
        before = max(self._events(state, mode, u, calm))
        behind, same = overrun, 0
        while overrun > close and late - early > shortest:
            # Regula falsi with halved weights (Illinois); halves where there is no slope.
            usable = math.isfinite(before) and before < 0.0
            share = before / (before - behind) if usable else 0.5
            middle = early + (late - early) * min(max(share, LOCATED), 1.0 - LOCATED)
            trial = self._events(self._advance(state, mode, u, middle), mode, u, calm)
            found = max(trial)
            if found > 0.0:
                late, overrun, behind, events = middle, found, found, trial
                before *= 0.5 if same > 0 else 1.0
                same = 1
            else:
                early, before = middle, found
                behind *= 0.5 if same < 0 else 1.0
                same = -1
        after = self._advance(state, mode, u, late)
        return late, CartPoleState(
            after.theta,
            min(max(after.x, self._lo), self._hi),
            0.0 if events.pivot_stops > 0.0 else after.theta_dot,
            0.0 if events.cart_stops > 0.0 else after.x_dot,
        )

    def _rebound(self, state: CartPoleState, inelastic: bool) -> CartPoleState:
        """Return the state after a stop has acted on a cart that runs into it."""
        p = self.parameters
        theta, x, omega, speed = state
        if not ((x >= self._hi and speed > 0.0) or (x <= self._lo and speed < 0.0)):
            return state
        after = -p.restitution * speed
        if inelastic or abs(after) < REST_SPEED:
            after = 0.0
        # The stop acts on the cart alone: m l² θ̇ + m l cos θ ẋ stays what it was.
        return CartPoleState(theta, x, omega + math.cos(theta) / p.length * (speed - after), after)

    def _mode(self, state: CartPoleState, u: float, calm: bool) -> _Mode:
        """Return what moves and what is held from here on."""
        p = self.parameters
        rests_pivot = state.theta_dot == 0.0 and p.pivot_coulomb > 0.0
        at_stop = state.x <= self._lo or state.x >= self._hi
        rests_cart = state.x_dot == 0.0 and (p.cart_coulomb > 0.0 or at_stop)
        moving = _Mode(-1 if state.theta_dot < 0.0 else 1, -1 if state.x_dot < 0.0 else 1)
        if not (rests_pivot or rests_cart):
            return moving
        held = _Mode(0 if rests_pivot else moving.pivot, 0 if rests_cart else moving.cart)
        # Nearly always what rests goes on resting; that is one look.
        if calm or self._consistent(state, held, held, u):
            return held
        pivots = (0, 1, -1) if rests_pivot else (moving.pivot,)
        carts = (0, 1, -1) if rests_cart else (moving.cart,)
        pairs = sorted(itertools.product(pivots, carts), key=lambda pair: -pair.count(0))
        for pair in pairs:
            if self._consistent(state, _Mode(*pair), held, u):
                return _Mode(*pair)
        # Only rounding leads here: at the very bound of what friction holds.
        return held

    def _consistent(self, state: CartPoleState, mode: _Mode, held: _Mode, u: float) -> bool:
        """Say whether what is held stays within its bound and what starts goes its way."""
        if max(self._held(state, mode, u)) > 0.0:
            return False
        turn, push = self._slopes(mode, u, state.theta, state.theta_dot, state.x_dot)
        if mode.pivot != held.pivot and mode.pivot * turn <= 0.0:
            return False
        if mode.cart == held.cart:
            return True
        blocked = state.x >= self._hi if mode.cart > 0 else state.x <= self._lo
        return mode.cart * push > 0.0 and not blocked
