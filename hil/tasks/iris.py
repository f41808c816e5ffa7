"""Iris: four features pull at a spring network, three displacements name the species.

Li & Mao, Nat. Commun. 15:10528 (2024), figure 4; data: Fisher 1936, from scikit-learn.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.geometry import Geometry
from hil.tasks.base import STREAM_SPLIT, AbstractStaticTask
from hil.types import Array, IntArray

Node = Annotated[int, Meta(ge=1, description="node, from 1")]
X, Y = 0, 1  # axes
FLOOR_MIN = 1e-12  # of the sum of outputs; keeps the loss of a measured 0 finite
SUM_MIN = 1e-15  # m; the sum of outputs of a network that did not move


class IrisSettings(Settings, frozen=True, kw_only=True):
    """Where the features pull, where the species is read, and how a miss is weighed."""

    inputs: Annotated[
        tuple[Node, Node, Node, Node],
        Meta(description="nodes loaded downwards by sepal length, width, petal length, width"),
    ] = (14, 12, 13, 10)
    outputs: Annotated[
        tuple[Node, Node, Node],
        Meta(description="nodes whose |u_x| stand for setosa, versicolor, virginica"),
    ] = (8, 2, 3)
    force: Annotated[
        float, Meta(gt=0, le=10, description="of the largest value of each feature, N")
    ] = 0.049
    floor: Annotated[
        float, Meta(ge=0, lt=0.3, description="share below which the loss goes on linearly, 1")
    ] = 0.05
    scale_with: Annotated[
        Literal["train", "all"],
        Meta(description="samples over which the largest value of a feature is taken"),
    ] = "train"
    split: Annotated[
        Literal["stratified", "plain"],
        Meta(description="draw the training part within each species, or from all"),
    ] = "stratified"
    train_share: Annotated[
        float, Meta(gt=0.05, lt=0.95, description="share of the samples that train, 1")
    ] = 0.7

    def __post_init__(self) -> None:
        """Refuse a node that would stand for two features or two species."""
        for name in ("inputs", "outputs"):
            nodes = getattr(self, name)
            if len(set(nodes)) < len(nodes):
                raise ValueError(f"`{name}` names a node twice: {list(nodes)}")


class Iris(AbstractStaticTask):
    """150 flowers of three species, told apart by the largest |u_x| of three nodes.

    The loss is the cross-entropy −log p over the shares p = |u_i| / Σ|u|. Its slope 1/p has
    no bound, and one sample near p = 0 can outweigh all others for a thousand steps of
    Adam; so below `floor` the loss goes on along its tangent, −log f + (f − p)/f.
    """

    Settings: ClassVar[type[IrisSettings]] = IrisSettings

    def __init__(self, settings: IrisSettings, *, geometry: Geometry, seed: int = 0) -> None:
        features, self._labels, self._classes = _data()
        self._inputs = tuple(node - 1 for node in settings.inputs)
        self._outputs = tuple(node - 1 for node in settings.outputs)
        self._dof = len(geometry.free_dofs)
        self._read = np.array([geometry.dof(node, X) for node in self._outputs])  # (3,)
        pulled = [geometry.dof(node, Y) for node in self._inputs]
        self._train, self._test = split(self._labels, settings.train_share, settings.split, seed)
        scaled_with = self._train if settings.scale_with == "train" else slice(None)
        self._loads = np.zeros((len(features), self._dof))  # (150, dof), N
        self._loads[:, pulled] = -settings.force * features / features[scaled_with].max(0)
        self._floor = max(settings.floor, FLOOR_MIN)

    @property
    def train(self) -> IntArray:
        """The samples that are learned from."""
        return self._train

    @property
    def test(self) -> IntArray:
        """The samples that are not."""
        return self._test

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the species."""
        return self._classes

    @property
    def inputs(self) -> tuple[int, ...]:
        """Nodes that are pulled down."""
        return self._inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        """Nodes whose horizontal displacement is read."""
        return self._outputs

    def labels(self, batch: IntArray) -> IntArray:
        """Return the species of each sample: (batch,)."""
        return self._labels[batch]

    def loads(self, batch: IntArray) -> Array:
        """Return the four forces of each sample: (batch, dof), N."""
        return self._loads[batch]

    def loss(self, displacement: Array, batch: IntArray) -> Array:
        """Return the cross-entropy of each sample, continued linearly: (batch,), 1."""
        p = _right(self._shares(displacement), self._labels[batch])
        p_cut = np.maximum(p, self._floor)
        return np.asarray(-np.log(p_cut) + (p_cut - p) / p_cut)

    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        """Return −∂loss/∂displacement, zero but at the three outputs: (batch, dof), 1/m."""
        labels = self._labels[batch]
        p = _right(self._shares(displacement), labels)[:, None]  # (batch, 1)
        u = displacement[:, self._read]  # (batch, 3), m
        total = np.maximum(np.abs(u).sum(1, keepdims=True), SUM_MIN)
        share_slope = (np.eye(3)[labels] - p) * np.sign(u) / total  # ∂p/∂u, (batch, 3), 1/m
        loads = np.zeros((len(batch), self._dof))
        loads[:, self._read] = share_slope / np.maximum(p, self._floor)
        return loads

    def predict(self, displacement: Array) -> IntArray:
        """Return the species with the largest |u_x|: (batch,)."""
        return np.asarray(np.abs(displacement[:, self._read]).argmax(1), dtype=np.int64)

    def score(self, displacement: Array, batch: IntArray) -> Array:
        """Return 1 where the species is right and 0 where not: (batch,)."""
        return np.asarray(self.predict(displacement) == self._labels[batch], dtype=np.float64)

    def _shares(self, displacement: Array) -> Array:
        size = np.abs(displacement[:, self._read])  # (batch, 3), m
        return np.asarray(size / np.maximum(size.sum(1, keepdims=True), SUM_MIN))


def split(
    labels: IntArray, share: float, how: Literal["stratified", "plain"], seed: int
) -> tuple[IntArray, IntArray]:
    """Return which samples train and which test, a pure function of the seed.

    labels: (n,). share: of the samples that train, 1. how: `stratified` draws that share
    of every class, `plain` of all samples together, so that classes come out uneven.
    """
    random = np.random.default_rng([seed, STREAM_SPLIT])
    if how == "stratified":
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    else:
        groups = [np.arange(len(labels))]
    shuffled = [random.permutation(group) for group in groups]
    cuts = [round(share * len(group)) for group in groups]
    train = np.concatenate([group[:cut] for group, cut in zip(shuffled, cuts, strict=True)])
    test = np.concatenate([group[cut:] for group, cut in zip(shuffled, cuts, strict=True)])
    return np.sort(train).astype(np.int64), np.sort(test).astype(np.int64)


def _right(shares: Array, labels: IntArray) -> Array:
    """Return the share of the right class of each sample: (batch,)."""
    return np.asarray(shares[np.arange(len(labels)), labels])


@cache
def _data() -> tuple[Array, IntArray, tuple[str, ...]]:
    """Return the features in cm, (150, 4), the labels, (150,), and the species' names."""
    from sklearn.datasets import load_iris  # takes a second: only who needs it pays

    found = load_iris()
    return (
        np.asarray(found.data, dtype=np.float64),
        np.asarray(found.target, dtype=np.int64),
        tuple(str(name) for name in found.target_names),
    )
