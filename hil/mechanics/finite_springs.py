"""Springs that move far: true lengths, Newton equilibrium, the exact gradient.

Energy E(u, k) = Σ ½ k e(u)², e the true change of a bond's length; equilibrium ∂E/∂u = F.
With n the present direction of a bond, l its present and L its rest length, its block of
the tangent ∂²E/∂u² is k (L/l) n nᵀ + k (e/l) 1: material and geometric stiffness together.
At an equilibrium the adjoint load −∂L/∂u on the tangent gives elongations e_adj, and
∂L/∂k = e ∘ e_adj as in the linear regime (implicit function theorem).

What is looked for is not any equilibrium but the one the network moves to from where it is:
the load is taken from what holds it there to what is asked for, in steps that are halved
until every Newton iterate on the way is stable, its tangent positive definite. Where no step
is short enough there is no such path: the network snaps, down its energy, to another branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack

from hil.errors import MechanicsError
from hil.mechanics.factorisation import AbstractFactorisation, compact, make_plan
from hil.mechanics.geometry import Geometry
from hil.mechanics.spring_network import Backpropagation, Equilibrium, SpringNetwork
from hil.types import AnyArray, Array, IntArray

Regime = Literal["linear", "exact"]
"""Small displacements, or true lengths of springs."""

ITERATIONS = 40  # Newton steps granted for one step of the load
DESCENT = 2000  # steps granted for snapping to another branch
STEP_MAX = 0.15  # of the shortest bond: largest motion of a node in one Newton step
SMALLEST = 2.0**-8  # share of a load below which a step that fails is a snap
ROUNDING = 1e-14  # of the largest force: a residual that is none
SETTLED = 1e-9  # of the largest force: below, a residual that stops shrinking is rounding
ARMIJO = 1e-4  # share of the promised decrease of energy that a step must bring
COLLAPSED = 1e-6  # of the rest length: a shorter bond has no direction


class AbstractStatics(Protocol):
    """What the equations of a network in either regime can be asked."""

    @property
    def geometry(self) -> Geometry:
        """Nodes, bonds, fixed nodes."""

    @property
    def bond_count(self) -> int:
        """Number of bonds."""

    @property
    def dof(self) -> int:
        """Number of degrees of freedom."""

    @property
    def linear(self) -> SpringNetwork:
        """The network at small displacements."""

    def settle(self, k: AnyArray, load: AnyArray) -> Equilibrium:
        """Return the equilibrium under a load (dof,) or a batch of them, at stiffness k."""

    def backpropagate(
        self, k: AnyArray, load: AnyArray, loss_gradient: Callable[[Array], Array]
    ) -> Backpropagation:
        """Return forward and adjoint equilibrium and the gradient of the mean loss."""

    def tangent(self, k: Array, displacement: Array) -> Array:
        """Return ∂²E/∂u² in full, (dof, dof), N/m: to be looked at, not to be solved with."""

    def stretch(self, displacement: Array) -> Array:
        """Return ∂e/∂u in full, (bonds, dof), 1."""


class Path(NamedTuple):
    """Where a network went from where it was."""

    displacement: Array  # (dof,), m
    elongation: Array  # (bonds,), m
    snapped: bool  # whether it left its branch on the way


class _State(NamedTuple):
    """Everything about a network at one displacement."""

    displacement: Array  # (dof,), m
    elongation: Array  # (bonds,), m
    direction: Array  # (bonds, d), unit vectors
    length: Array  # (bonds,), m
    force: Array  # (dof,), N, that holds the network there
    energy: float  # J


class FiniteSpringNetwork:
    """Ideal springs between nodes, at displacements of any size; arrays in, arrays out.

    nodes: (n, d), m. bonds: (m, 2), nodes from 0. fixed: nodes that do not move, from 0.
    Raises MechanicsError for nodes and bonds that make no network.
    """

    def __init__(self, nodes: Array, bonds: IntArray, fixed: Iterable[int] = ()) -> None:
        self.linear = SpringNetwork(nodes, bonds, fixed)
        self.geometry = geometry = self.linear.geometry
        self.bond_count, self.dof = self.linear.bond_count, self.linear.dof
        self.rest_length = geometry.lengths  # (bonds,), m
        ends = geometry.bonds
        self._span = geometry.nodes[ends[:, 1]] - geometry.nodes[ends[:, 0]]  # (bonds, d), m
        sparse = _difference(geometry)
        self._difference: Any = compact(sparse)  # (bonds·d, dof): change of every span
        self._spread: Any = self._difference.T
        self._pairs = tuple(combinations(range(geometry.dimensions), 2))
        # The tangent is linear in the d(d + 1)/2 numbers of every bond's block, so the plans
        # of the linear network serve: they see so many bonds of fixed directions.
        self._plan = make_plan(_directions(sparse, geometry.dimensions, self._pairs))
        self._step_max = STEP_MAX * float(self.rest_length.min())

    @classmethod
    def from_geometry(cls, geometry: Geometry) -> FiniteSpringNetwork:
        """Return the network of a geometry."""
        return cls(geometry.nodes, geometry.bonds, geometry.fixed)

    def elongation(self, displacement: Array) -> Array:
        """Return the true change of every bond's length: (bonds,), m.

        displacement: (dof,), m.
        """
        return self._lengths(displacement)[0]

    def energy(self, k: Array, displacement: Array) -> float:
        """Return the energy stored in the springs, J; k: (bonds,), N/m."""
        return 0.5 * float(k @ self.elongation(displacement) ** 2)

    def force(self, k: Array, displacement: Array) -> Array:
        """Return the load that holds the network where it is: (dof,), N."""
        return self._state(k, displacement).force

    def tangent(self, k: Array, displacement: Array) -> Array:
        """Return ∂²E/∂u² in full, (dof, dof), N/m: to be looked at, not to be solved with."""
        state = self._state(k, displacement)
        blocks = self._blocks(k, state).reshape(-1, *2 * (self.geometry.dimensions,))
        rows = self._rows()
        return np.asarray(np.einsum("bip,bij,bjq->pq", rows, blocks, rows))

    def stretch(self, displacement: Array) -> Array:
        """Return ∂e/∂u in full, (bonds, dof), 1: how a bond lengthens where it points now."""
        _, length, span = self._lengths(displacement)
        return np.asarray(np.einsum("bi,bip->bp", span / length[:, None], self._rows()))

    def settle(self, k: AnyArray, load: AnyArray) -> Equilibrium:
        """Return where the network comes to rest under a load, or under each of a batch.

        Each from the unloaded state. k: (bonds,), N/m. load: (dof,) or (batch, dof), N.
        Raises MechanicsError as `follow` does.
        """
        load = np.asarray(load, dtype=np.float64)
        found = [self._settled(k, one)[0] for one in np.atleast_2d(load)]
        equilibrium = Equilibrium(
            np.array([state.displacement for state in found]).reshape(*load.shape[:-1], self.dof),
            np.array([s.elongation for s in found]).reshape(*load.shape[:-1], self.bond_count),
        )
        return equilibrium

    def follow(self, k: AnyArray, load: Array, start: Array) -> Path:
        """Return where the network goes from `start`, (dof,), m, under a load (dof,), N.

        Raises MechanicsError for a network with a zero mode at rest, for shapes that do not
        fit, and where no stable equilibrium is found, saying how far the load was taken.
        """
        state, snapped = self._follow(self._checked(k, load), load, start)
        return Path(state.displacement, state.elongation, snapped)

    def backpropagate(
        self, k: AnyArray, load: AnyArray, loss_gradient: Callable[[Array], Array]
    ) -> Backpropagation:
        """Return forward and adjoint equilibrium and the exact gradient of the mean loss.

        load: (dof,) or (batch, dof), N. loss_gradient: displacement of that shape → ∂L/∂u.
        The adjoint is the tangent's answer to −∂L/∂u. Raises MechanicsError as `follow` does.
        """
        load = np.asarray(load, dtype=np.float64)
        found = [self._settled(k, one) for one in np.atleast_2d(load)]
        displacement = np.array([state.displacement for state, _ in found])
        elongation = np.array([state.elongation for state, _ in found])
        wanted = -np.asarray(loss_gradient(displacement.reshape(load.shape)))
        answers, stretches = [], []
        for (state, factorisation), adjoint_load in zip(found, np.atleast_2d(wanted), strict=True):
            answer = factorisation.solve(adjoint_load[None])[0]
            change = (self._difference @ answer).reshape(self._span.shape)
            answers.append(answer)
            stretches.append(np.einsum("bi,bi->b", state.direction, change))
        adjoint = Equilibrium(
            np.array(answers).reshape(load.shape),
            np.array(stretches).reshape(*load.shape[:-1], self.bond_count),
        )
        forward = Equilibrium(
            displacement.reshape(load.shape),
            elongation.reshape(*load.shape[:-1], self.bond_count),
        )
        gradient = SpringNetwork.gradient(forward.elongation, adjoint.elongation)
        return Backpropagation(forward, adjoint, gradient)

    def _rows(self) -> Array:
        """Return the change of every span by every degree of freedom: (bonds, d, dof)."""
        full = self._difference
        full = full if isinstance(full, np.ndarray) else full.toarray()
        return np.asarray(full.reshape(self.bond_count, self.geometry.dimensions, self.dof))

    def _settled(self, k: AnyArray, load: Array) -> tuple[_State, AbstractFactorisation]:
        """Return the state under a load, from rest, and its factorised tangent."""
        stiffness = self._checked(k, load)
        state, _ = self._follow(stiffness, load, np.zeros(self.dof))
        return state, self._factorise(stiffness, state)

    def _checked(self, k: AnyArray, load: Array) -> Array:
        k = np.asarray(k, dtype=np.float64)
        if load.shape != (self.dof,):
            raise MechanicsError(
                f"spring network: load has shape {load.shape}; expected ({self.dof},) or "
                f"(batch, {self.dof}), one force in N per degree of freedom"
            )
        if not np.isfinite(load).all():
            raise MechanicsError("spring network: a load is not a finite number of N")
        # Without rigidity at rest there is no branch to start on; also checks k itself.
        self.linear.factorise(k)
        return k

    def _follow(self, k: Array, load: Array, start: Array) -> tuple[_State, bool]:
        """Take the load from what holds `start` to `load`, in steps as short as they must be."""
        state = self._state(k, start)
        held = state.force
        done, step, snapped = 0.0, 1.0, False
        while done < 1.0:
            share = min(done + step, 1.0)
            goal = load if share == 1.0 else held + share * (load - held)
            found = self._newton(k, goal, state)
            if found is None and step > SMALLEST:
                step /= 2
                continue
            if found is None:
                found, snapped = self._descend(k, goal, state, share), True
            state, done, step = found, share, 2 * step
        return state, snapped

    def _newton(self, k: Array, goal: Array, state: _State) -> _State | None:
        """Return the equilibrium under `goal`; None where an iterate is unstable on the way."""
        before = np.inf
        for _ in range(ITERATIONS):
            residual = goal - state.force
            size = float(np.abs(residual).max())
            scale = max(float(np.abs(goal).max()), float(np.abs(k * state.elongation).max()))
            at_rest = size <= ROUNDING * scale or (size <= SETTLED * scale and size > before / 2)
            try:
                factorisation = self._factorise(k, state)
            except MechanicsError:
                return None
            if at_rest:
                return state
            before = size
            nearer = self._search(k, goal, state, factorisation.solve(residual[None])[0])
            if nearer is None:
                return state if size <= SETTLED * scale else None
            state = nearer
        return None

    def _search(self, k: Array, goal: Array, state: _State, step: Array) -> _State | None:
        """Return the state along a Newton step, cut until the energy falls as it should."""
        residual = goal - state.force
        step = step * min(1.0, self._step_max / max(float(np.abs(step).max()), 1e-300))
        promised = float(residual @ step)
        height = state.energy - float(goal @ state.displacement)
        for _ in range(12):
            try:
                tried = self._state(k, state.displacement + step)
            except MechanicsError:  # a bond collapsed: too far
                step, promised = step / 2, promised / 2
                continue
            fallen = height - (tried.energy - float(goal @ tried.displacement))
            # Close to the end the energy no longer tells two states apart, but the force does.
            nearer = np.abs(goal - tried.force).max() < 0.5 * np.abs(residual).max()
            if fallen >= ARMIJO * promised or nearer:
                return tried
            step, promised = step / 2, promised / 2
        return None

    def _descend(self, k: Array, goal: Array, state: _State, share: float) -> _State:
        """Snap: go down the energy to the next stable equilibrium under `goal`."""
        rest = self._blocks(k, self._state(k, np.zeros(self.dof)))
        shift = 0.0
        for _ in range(DESCENT):
            blocks = self._blocks(k, state)
            try:
                factorisation = self._plan.factorise(self._coefficients(blocks + shift * rest))
            except MechanicsError:
                shift = max(2 * shift, 1e-3)
                continue
            step = factorisation.solve((goal - state.force)[None])[0]
            lower = self._search(k, goal, state, step)
            if lower is None:
                shift = max(4 * shift, 1e-3)
                if shift > 1e6:
                    break
                continue
            state, shift = lower, shift / 4 if shift > 1e-3 else 0.0
            if shift == 0.0:
                found = self._newton(k, goal, state)
                if found is not None:
                    return found
        raise MechanicsError(
            f"spring network: no stable equilibrium beyond {share:.1%} of the change of load "
            f"(largest force {np.abs(goal).max():.3g} N there, largest strain "
            f"{np.abs(state.elongation / self.rest_length).max():.2f}); take a smaller load"
        )

    def _lengths(self, displacement: Array) -> tuple[Array, Array, Array]:
        """Return elongations, present lengths and present spans of all bonds."""
        change = (self._difference @ displacement).reshape(self._span.shape)
        span = self._span + change
        length = np.sqrt(np.einsum("bi,bi->b", span, span))
        # l − L without the difference of two nearly equal numbers.
        stretch = np.einsum("bi,bi->b", self._span + span, change)
        return stretch / (length + self.rest_length), length, span

    def _state(self, k: Array, displacement: Array) -> _State:
        elongation, length, span = self._lengths(displacement)
        if not (length > COLLAPSED * self.rest_length).all():  # true for NaN as well
            bond = int(np.argmin(length / self.rest_length))
            raise MechanicsError(
                f"spring network: bond {bond + 1} is squeezed to nothing; take a smaller load"
            )
        direction = span / length[:, None]
        tension = k * elongation
        force = self._spread @ (tension[:, None] * direction).ravel()
        return _State(
            displacement, elongation, direction, length, force, 0.5 * float(tension @ elongation)
        )

    def _blocks(self, k: Array, state: _State) -> Array:
        """Return every bond's block of the tangent: (bonds, d·d), N/m."""
        axes = self.geometry.dimensions
        n = state.direction
        material = (k * self.rest_length / state.length)[:, None, None] * n[:, :, None] * n[:, None]
        geometric = (k * state.elongation / state.length)[:, None, None] * np.eye(axes)
        return np.asarray((material + geometric).reshape(self.bond_count, axes * axes))

    def _coefficients(self, blocks: Array) -> Array:
        """Return blocks as stiffness along fixed directions: axes, then sums of two axes.

        [[a, c], [c, b]] = (a − c) x xᵀ + (b − c) y yᵀ + c (x + y)(x + y)ᵀ, and so on.
        """
        axes = self.geometry.dimensions
        square = blocks.reshape(self.bond_count, axes, axes)
        own = np.einsum("bii->bi", square) - (square.sum(2) - np.einsum("bii->bi", square))
        mixed = [square[:, i, j] for i, j in self._pairs]
        return np.concatenate([own.T, np.array(mixed).reshape(-1, self.bond_count)]).ravel()

    def _factorise(self, k: Array, state: _State) -> AbstractFactorisation:
        """Return the factorised tangent; raises MechanicsError where it is not stable."""
        return self._plan.factorise(self._coefficients(self._blocks(k, state)))


def make_statics(geometry: Geometry, regime: Regime) -> AbstractStatics:
    """Return the equations of a network in a regime."""
    if regime == "linear":
        return SpringNetwork.from_geometry(geometry)
    return FiniteSpringNetwork.from_geometry(geometry)


def _difference(geometry: Geometry) -> Any:
    """Return the matrix from displacement to the change of every span: (bonds·d, dof)."""
    axes, bonds = geometry.dimensions, len(geometry.bonds)
    column = geometry.dof_table[geometry.bonds.T].reshape(2, bonds * axes)
    row = np.broadcast_to(np.arange(bonds * axes), column.shape)
    value = np.broadcast_to(np.array([[-1.0], [1.0]]), column.shape)
    kept = column >= 0
    shape = (bonds * axes, len(geometry.free_dofs))
    return coo_array((value[kept], (row[kept], column[kept])), shape).tocsr()


def _directions(difference: Any, axes: int, pairs: tuple[tuple[int, int], ...]) -> Any:
    """Return the elongation along fixed directions: axes, then sums of two, of all bonds."""
    along = [csr_array(difference[axis::axes]) for axis in range(axes)]
    return vstack([*along, *(along[i] + along[j] for i, j in pairs)]).tocsr()
