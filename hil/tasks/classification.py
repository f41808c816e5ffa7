"""Classes read from a spring network: features pull at nodes, the largest displacement names one.

    features ──scaling──▶ forces at `inputs` ──rig──▶ |u_x| of `outputs` ──▶ shares, class

Li & Mao, Nat. Commun. 15:10528 (2024). The loss is the cross-entropy −log p over the shares
p = |u_i| / Σ|u|. Its slope 1/p has no bound, and one sample near p = 0 can outweigh all others
for a thousand steps of Adam; so below a floor f the loss goes on along its tangent,
−log f + (f − p)/f.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.geometry import Geometry
from hil.tasks.base import STREAM_SPLIT, AbstractStaticTask
from hil.types import Array, IntArray

Node = Annotated[int, Meta(ge=1, description="node, from 1")]
Floor = Annotated[
    float, Meta(ge=0, lt=0.3, description="share below which the loss goes on linearly, 1")
]
Share = Annotated[float, Meta(gt=0.05, lt=0.95, description="share of the samples that train, 1")]
X, Y = 0, 1  # axes
FLOOR_MIN = 1e-12  # of the sum of outputs; keeps the loss of a measured 0 finite
SUM_MIN = 1e-15  # m; the sum of outputs of a network that did not move


class ClassificationSettings(Settings, frozen=True, kw_only=True):
    """Where four features pull, where three classes are read, and how a miss is weighed."""

    inputs: Annotated[
        tuple[Node, Node, Node, Node],
        Meta(description="nodes loaded downwards, one per feature"),
    ]
    outputs: Annotated[
        tuple[Node, Node, Node], Meta(description="nodes whose |u_x| stand for the classes")
    ]
    force: Annotated[
        float, Meta(gt=0, le=10, description="of the largest value of each feature, N")
    ] = 0.049
    floor: Floor = 0.05
    scaling: Annotated[
        Literal["max", "min_max"],
        Meta(description="a feature as a share of its largest value, or of its range"),
    ] = "max"
    scale_with: Annotated[
        Literal["train", "all"], Meta(description="samples over which a feature is scaled")
    ] = "train"
    split: Annotated[
        Literal["stratified", "plain"],
        Meta(description="draw the training part within each class, or from all"),
    ] = "stratified"
    train_share: Share = 0.7

    def __post_init__(self) -> None:
        """Refuse a node that would stand for two features or two classes."""
        for name in ("inputs", "outputs"):
            nodes = getattr(self, name)
            if len(set(nodes)) < len(nodes):
                raise ValueError(f"`{name}` names a node twice: {list(nodes)}")


@dataclass(frozen=True)
class DataSet:
    """What is to be told apart."""

    features: Array  # (n, 4)
    labels: IntArray  # (n,)
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Presented:
    """A data set as it is shown to one network."""

    classes: tuple[str, ...]
    labels: IntArray  # (n,)
    loads: Array  # (n, dof), N
    train: IntArray
    test: IntArray
    inputs: tuple[int, ...]  # nodes, from 0
    outputs: tuple[int, ...]  # nodes, from 0
    read: IntArray  # (classes,), degrees of freedom
    floor: float


def present(
    data: DataSet, settings: ClassificationSettings, geometry: Geometry, seed: int
) -> Presented:
    """Return the forces, the split and the read-outs of a data set on a network.

    Raises MechanicsError for a node that is fixed or does not exist.
    """
    inputs = tuple(node - 1 for node in settings.inputs)
    outputs = tuple(node - 1 for node in settings.outputs)
    read = np.array([geometry.dof(node, X) for node in outputs])
    pulled = [geometry.dof(node, Y) for node in inputs]
    train, test = split(data.labels, settings.train_share, settings.split, seed)
    seen = data.features[train] if settings.scale_with == "train" else data.features
    low = seen.min(0) if settings.scaling == "min_max" else 0.0
    loads = np.zeros((len(data.features), len(geometry.free_dofs)))
    loads[:, pulled] = -settings.force * (data.features - low) / (seen.max(0) - low)
    return Presented(
        classes=data.classes,
        labels=data.labels,
        loads=loads,
        train=train,
        test=test,
        inputs=inputs,
        outputs=outputs,
        read=read,
        floor=settings.floor,
    )


class AbstractClassification(AbstractStaticTask):
    """What tasks that tell classes apart have in common; a leaf gives its data, presented."""

    @property
    @abstractmethod
    def presented(self) -> Presented:
        """The data set as this network is shown it."""

    @property
    def train(self) -> IntArray:
        """The samples that are learned from."""
        return self.presented.train

    @property
    def test(self) -> IntArray:
        """The samples that are not."""
        return self.presented.test

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.presented.classes

    @property
    def inputs(self) -> tuple[int, ...]:
        """Nodes that are pulled down."""
        return self.presented.inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        """Nodes whose horizontal displacement is read."""
        return self.presented.outputs

    def labels(self, batch: IntArray) -> IntArray:
        """Return the class of each sample: (batch,)."""
        return self.presented.labels[batch]

    def loads(self, batch: IntArray) -> Array:
        """Return the four forces of each sample: (batch, dof), N."""
        return self.presented.loads[batch]

    def loss(self, displacement: Array, batch: IntArray) -> Array:
        """Return the cross-entropy of each sample, continued linearly: (batch,), 1."""
        shown = self.presented
        return cross_entropy(displacement[:, shown.read], shown.labels[batch], shown.floor)

    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        """Return −∂loss/∂displacement, zero but at the three outputs: (batch, dof), 1/m."""
        shown = self.presented
        loads = np.zeros(displacement.shape)
        loads[:, shown.read] = -cross_entropy_slope(
            displacement[:, shown.read], shown.labels[batch], shown.floor
        )
        return loads

    def predict(self, displacement: Array) -> IntArray:
        """Return the class with the largest |u_x|: (batch,)."""
        read = displacement[:, self.presented.read]
        return np.asarray(np.abs(read).argmax(1), dtype=np.int64)

    def score(self, displacement: Array, batch: IntArray) -> Array:
        """Return 1 where the class is right and 0 where not: (batch,)."""
        return np.asarray(self.predict(displacement) == self.labels(batch), dtype=np.float64)


def shares(u: Array) -> Array:
    """Return |u_i| / Σ|u| of outputs u (batch, outputs), m: same shape, 1."""
    size = np.abs(u)
    return np.asarray(size / np.maximum(size.sum(1, keepdims=True), SUM_MIN))


def cross_entropy(u: Array, labels: IntArray, floor: float) -> Array:
    """Return −log of the share of the right output, its tangent below `floor`: (batch,), 1.

    u: (batch, outputs), m. labels: (batch,), which output is to be the largest.
    """
    p = shares(u)[np.arange(len(labels)), labels]
    p_cut = np.maximum(p, max(floor, FLOOR_MIN))
    return np.asarray(-np.log(p_cut) + (p_cut - p) / p_cut)


def cross_entropy_slope(u: Array, labels: IntArray, floor: float) -> Array:
    """Return ∂loss/∂u of `cross_entropy`: (batch, outputs), 1/m."""
    rows = np.arange(len(labels))
    p = shares(u)[rows, labels][:, None]  # (batch, 1)
    total = np.maximum(np.abs(u).sum(1, keepdims=True), SUM_MIN)
    right = np.zeros(u.shape)
    right[rows, labels] = 1.0
    share_slope = (right - p) * np.sign(u) / total  # ∂p/∂u, 1/m
    return np.asarray(-share_slope / np.maximum(p, max(floor, FLOOR_MIN)))


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
