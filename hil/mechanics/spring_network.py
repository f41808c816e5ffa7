"""A network of linear springs: statics, and the gradient by an adjoint load.

Equations of Li & Mao, Nat. Commun. 15:10528 (2024): elongation e = compat u, stiffness
matrix D = compatᵀ diag(k) compat, equilibrium D u = F, adjoint D u_adj = −(∂L/∂u)ᵀ, and
then ∂L/∂k = e_adj ∘ e, one local product per bond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array, diags_array

from hil.errors import MechanicsError
from hil.mechanics.factorisation import AbstractFactorisation, SparseLU, compact, make_plan
from hil.mechanics.geometry import Geometry, numbers
from hil.mechanics.zero_modes import STIFFNESS_ROUNDING, softest_modes
from hil.types import AnyArray, Array, IntArray

ENOUGH_MODES = 64  # zero modes after which a check stops counting
SHARE_NAMED = 0.1  # of the largest motion: nodes that move less are not named


class Equilibrium(NamedTuple):
    """Where a network comes to rest; one load case, or a batch of them in rows."""

    displacement: Array  # (dof,) or (batch, dof), m
    elongation: Array  # (bonds,) or (batch, bonds), m


class Backpropagation(NamedTuple):
    """A forward and an adjoint equilibrium, and the gradient they give."""

    forward: Equilibrium
    adjoint: Equilibrium  # displacement and elongation in m per unit of loss
    gradient: Array  # (bonds,), loss per N/m


class SpringNetwork:
    """Linear springs between nodes; arrays in, arrays out.

    nodes: (n, d), m. bonds: (m, 2), nodes from 0. fixed: nodes that do not move, from 0.
    Stiffness k is (bonds,), N/m, and may be complex (a complex step); loads are (dof,) or
    (batch, dof), N. A network may be shared between threads.
    Raises MechanicsError for nodes and bonds that make no network.
    """

    def __init__(self, nodes: Array, bonds: IntArray, fixed: Iterable[int] = ()) -> None:
        self.geometry = Geometry(nodes, bonds, tuple(fixed))
        self.bond_count = len(self.geometry.bonds)
        self.dof = len(self.geometry.free_dofs)
        sparse = _compatibility(self.geometry)
        self.compat: Any = compact(sparse)  # (bonds, dof): elongation = compat @ displacement
        self._compat_t = self.compat.T
        self._plan = make_plan(sparse)
        self._widest: dict[bytes, float] = {}  # present bonds → stiffness ratio that is safe

    @classmethod
    def from_geometry(cls, geometry: Geometry) -> SpringNetwork:
        """Return the network of a geometry."""
        return cls(geometry.nodes, geometry.bonds, geometry.fixed)

    @property
    def linear(self) -> SpringNetwork:
        """The network at small displacements: itself."""
        return self

    def stiffness_matrix(self, k: AnyArray) -> Any:
        """Return D = compatᵀ diag(k) compat, (dof, dof), N/m; sparse where compat is."""
        if isinstance(self.compat, np.ndarray):
            return (self._compat_t * k) @ self.compat
        return self._compat_t @ diags_array(k) @ self.compat

    def tangent(self, k: Array, displacement: Array) -> Array:
        """Return D in full, (dof, dof), N/m: the same at every displacement."""
        stretch = self.stretch(displacement)
        return np.asarray((stretch.T * k) @ stretch)

    def stretch(self, displacement: Array) -> Array:
        """Return ∂e/∂u in full, (bonds, dof), 1: the same at every displacement."""
        full = self.compat
        return full if isinstance(full, np.ndarray) else np.asarray(full.toarray())

    def factorise(self, k: AnyArray) -> AbstractFactorisation:
        """Return the factorisation at stiffness k, good for any number of loads.

        k: (bonds,), N/m; 0 stands for a bond that was taken out.
        Raises MechanicsError for a stiffness that is negative, not finite or of the wrong
        shape, and for a network with a zero mode, naming the bonds and nodes.
        """
        k = np.asarray(k)
        real = k.real
        # NaN, negative, zero and very uneven stiffness all fail this one comparison.
        if k.shape != (self.bond_count,) or not real.max() < self._safe_ratio * real.min():
            self.check(real)
        if k.dtype.kind == "c":
            return SparseLU(self.stiffness_matrix(k))
        return self._plan.factorise(k)

    def settle(self, k: AnyArray | AbstractFactorisation, load: AnyArray) -> Equilibrium:
        """Return the equilibrium under a load, or under each load of a batch.

        k: (bonds,), N/m, or its factorisation. load: (dof,) or (batch, dof), N.
        Raises MechanicsError as `factorise` does, and for a load of the wrong shape.
        """
        load = np.asarray(load)
        if load.ndim not in (1, 2) or load.shape[-1] != self.dof:
            raise MechanicsError(
                f"spring network: load has shape {load.shape}; expected ({self.dof},) or "
                f"(batch, {self.dof}), one force in N per degree of freedom"
            )
        factorisation = k if isinstance(k, AbstractFactorisation) else self.factorise(k)
        cases = load if load.ndim == 2 else load[None]
        displacement: AnyArray
        if cases.dtype.kind == "c":  # a complex step in the load
            displacement = factorisation.solve(cases.real) + 1j * factorisation.solve(cases.imag)
        else:
            displacement = factorisation.solve(cases)
        if load.ndim == 1:
            displacement = displacement[0]
        return Equilibrium(displacement, displacement @ self._compat_t)

    def adjoint(self, k: AnyArray | AbstractFactorisation, loss_gradient: AnyArray) -> Equilibrium:
        """Return the equilibrium under the adjoint load −∂L/∂u.

        loss_gradient: ∂L/∂u, (dof,) or (batch, dof), loss per m.
        """
        return self.settle(k, -np.asarray(loss_gradient))

    @staticmethod
    def gradient(forward: Array, adjoint: Array) -> Array:
        """Return ∂L/∂k, one local product per bond: (bonds,), loss per N/m.

        forward, adjoint: the two elongations, (bonds,) or (batch, bonds). The loss of a
        batch is the mean of the losses of its cases, and so is its gradient.
        Raises MechanicsError when the shapes differ.
        """
        if forward.shape != adjoint.shape:
            raise MechanicsError(
                f"spring network: forward elongation has shape {forward.shape}, adjoint "
                f"{adjoint.shape}; give one adjoint load per load case"
            )
        product = forward * adjoint
        return product if product.ndim == 1 else np.add.reduce(product) / len(product)

    def backpropagate(
        self,
        k: AnyArray | AbstractFactorisation,
        load: AnyArray,
        loss_gradient: Callable[[Array], Array],
    ) -> Backpropagation:
        """Return forward and adjoint equilibrium and gradient, from one factorisation.

        loss_gradient: takes the displacement, returns ∂L/∂u of each case by itself, both
        of the shape of `load`. The gradient is that of the mean loss over the batch.
        Raises MechanicsError as `settle` does.
        """
        factorisation = k if isinstance(k, AbstractFactorisation) else self.factorise(k)
        forward = self.settle(factorisation, load)
        adjoint = self.adjoint(factorisation, loss_gradient(forward.displacement))
        return Backpropagation(
            forward, adjoint, self.gradient(forward.elongation, adjoint.elongation)
        )

    def zero_modes(self, k: AnyArray | None = None) -> int:
        """Return how many independent motions stretch no bond.

        k: (bonds,), N/m; a bond of stiffness 0 counts as taken out. Without k: the
        geometry alone. Raises MechanicsError for a stiffness that cannot be.
        """
        weights = np.ones(self.bond_count) if k is None else self._valid(np.asarray(k).real)
        return int(softest_modes(self._weighted(weights)).zero.shape[1])

    @cached_property
    def self_stresses(self) -> int:
        """How many independent sets of bond tensions balance at every free node."""
        return self.bond_count - self.dof + self.zero_modes()

    def check(self, k: AnyArray | None = None) -> None:
        """Raise MechanicsError unless every load has one equilibrium.

        k: (bonds,), N/m; without it, the geometry alone is looked at.
        """
        k = np.ones(self.bond_count) if k is None else self._valid(np.asarray(k).real)
        present = k > 0
        key = present.tobytes()
        if key not in self._widest:
            modes = softest_modes(self._weighted(present.astype(float)), ENOUGH_MODES)
            if modes.zero.shape[1]:
                raise self._loose(modes.zero, np.flatnonzero(~present))
            self._widest[key] = modes.conditioning / STIFFNESS_ROUNDING
        low, high = k[present].min(), k.max()
        if high > self._widest[key] * low and softest_modes(self._weighted(k)).zero.shape[1]:
            raise MechanicsError(
                f"spring network: stiffness spans {low:.3g} to {high:.3g} N/m, too wide for a "
                "trustworthy equilibrium; raise the softest bond or set it to 0 to take it out"
            )

    @cached_property
    def _safe_ratio(self) -> float:
        """Largest over smallest stiffness up to which no further look is needed."""
        self.check()
        return self._widest[np.ones(self.bond_count, dtype=bool).tobytes()]

    def _weighted(self, k: Array) -> Any:
        root = np.sqrt(k / k.max()) if k.max() > 0 else k
        if isinstance(self.compat, np.ndarray):
            return root[:, None] * self.compat
        return diags_array(root) @ self.compat

    def _valid(self, k: Array) -> Array:
        if k.shape != (self.bond_count,):
            raise MechanicsError(
                f"spring network: stiffness has shape {k.shape}; "
                f"expected ({self.bond_count},), one value in N/m per bond"
            )
        for bond in np.flatnonzero(~(np.isfinite(k) & (k >= 0)))[:1]:
            raise MechanicsError(
                f"spring network: stiffness of bond {self._named(bond)} is {k[bond]} N/m; "
                "give a finite value above 0, or 0 to take the bond out"
            )
        return k

    def _loose(self, zero: Array, absent: IntArray) -> MechanicsError:
        """Return the error that names what moves and what is missing."""
        count = zero.shape[1]
        motion = zero.reshape(len(self.geometry.free_nodes), -1)
        size = np.linalg.norm(motion, axis=1)  # of every free node, over all modes
        most = np.argsort(-size, kind="stable")
        most = self.geometry.free_nodes[most[size[most] > SHARE_NAMED * size.max()]]
        without, remedy = "", "add a bond there"
        if len(absent):
            names = ", ".join(self._named(bond) for bond in absent[:4])
            more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
            without, remedy = f"without bond {names}{more} ", "give the bond a stiffness"
        modes = "is a zero mode, a motion that stretches"
        if count > 1:
            least = "at least " if count >= ENOUGH_MODES else ""
            modes = f"are {least}{count} zero modes, motions that stretch"
        return MechanicsError(
            f"spring network: {without}there {modes} no bond beyond rounding, of node "
            f"{numbers(most)}; {remedy} or fix another node"
        )

    def _named(self, bond: int) -> str:
        first, second = self.geometry.bonds[bond] + 1
        return f"{bond + 1} ({first}, {second})"


def _compatibility(geometry: Geometry) -> Any:
    """Return compat (bonds × dof), sparse: the unit vector of each bond at its free ends."""
    ends = geometry.bonds
    span = geometry.nodes[ends[:, 1]] - geometry.nodes[ends[:, 0]]
    unit = span / np.linalg.norm(span, axis=1)[:, None]  # (bonds, d)
    value = np.concatenate([-unit, unit]).ravel()
    column = geometry.dof_table[np.concatenate([ends[:, 0], ends[:, 1]])].ravel()
    row = np.repeat(np.tile(np.arange(len(ends)), 2), geometry.dimensions)
    kept = (column >= 0) & (value != 0)
    shape = (len(ends), len(geometry.free_dofs))
    return coo_array((value[kept], (row[kept], column[kept])), shape).tocsr()
