"""A bench without actuators: a person who is told what to do, and a camera that looks on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from hil.rigs.base import AbstractBoard
from hil.rigs.stock import String
from hil.types import AnyArray, Array

Point = tuple[float, float]


class MarkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The markers, and when a sight of them is refused."""

    radius: Annotated[float, Meta(gt=0, description="of a white dot, m")] = 0.0015
    frame: Annotated[
        tuple[Point, ...],
        Meta(min_length=4, description="[x, y] of the markers on the board behind, m"),
    ] = (
        (-0.012, -0.014), (0.032, -0.016), (0.076, -0.014),
        (-0.012, 0.052), (0.032, 0.054), (0.076, 0.052),
    )  # fmt: skip
    gate: Annotated[
        float, Meta(gt=0, le=0.5, description="farthest from where expected, of the next, 1")
    ] = 0.4
    hidden: Annotated[float, Meta(gt=0, le=1, description="change of brightness, 1")] = 0.06
    moved: Annotated[float, Meta(gt=0, description="shift taken for none, px")] = 0.2
    strain: Annotated[float, Meta(gt=0, description="of a strut that can be, 1")] = 0.35


class Answer(StrEnum):
    """What a person said to an instruction."""

    DONE = "done"
    SKIP = "skip"  # it could not be done, everything is as it was
    STOP = "stop"


@dataclass(frozen=True)
class Hang:
    """Hang these weights and nothing else."""

    strings: tuple[String, ...]
    load: Array  # (dof,), N, the same as forces
    case: int = 0  # which since the rig was made, from 1; 0: it is no load case

    def words(self) -> str:
        """Return it as a person is told."""
        if not self.strings:
            which = f"load case {self.case}: " if self.case else ""
            return f"{which}take every weight off, and let the network come to rest"
        lines = [f"load case {self.case}: let these weights hang and no other:"]
        return "\n".join([*lines, *(f"  {string.words()}" for string in self.strings)])


@dataclass(frozen=True)
class Strut:
    """A strut to be changed for another."""

    bond: int  # from 0
    nodes: tuple[int, int]  # from 0
    width: float  # mm; 0: none
    before: float  # mm

    def words(self) -> str:
        """Return it as a person is told."""
        what = f"{self.width:g} mm wide" if self.width else "none, cut it out"
        return f"bond {self.bond + 1}, node {self.nodes[0] + 1} to {self.nodes[1] + 1}: {what}"


@dataclass(frozen=True)
class Mount:
    """Mount these struts."""

    struts: tuple[Strut, ...]
    widths: Array  # (bonds,), mm, of all struts afterwards
    stiffness: Array  # (bonds,), N/m, the same as stiffness
    check: bool = False  # nothing is known of what is mounted: look at all of them

    def words(self) -> str:
        """Return it as a person is told."""
        if not self.check:
            lines = [f"  {s.words()} (was {s.before:g} mm)" for s in self.struts]
            return "\n".join(["print and mount these struts:", *lines])
        widths = [strut.width for strut in self.struts]
        usual = max(set(widths), key=widths.count)
        others = [f"  {s.words()}" for s in self.struts if s.width != usual]
        which = "all" if not others else "all others of the"
        lines = [*others, f"make sure that {which} {len(widths)} struts are {usual:g} mm wide"]
        return "\n".join([*(["make sure of these struts:"] if others else []), *lines])


@dataclass(frozen=True)
class HoldBoard:
    """Hold a checkerboard before the camera."""

    view: int  # from 1
    views: int
    columns: int  # inner corners
    rows: int
    square: float  # m

    def words(self) -> str:
        """Return it as a person is told."""
        how = ("flat", "left edge up", "right edge up", "upper edge up", "lower edge up")
        return (
            f"view {self.view} of {self.views}: hold the checkerboard ({self.columns} × "
            f"{self.rows} inner corners, squares of {self.square * 1e3:g} mm) still in view, "
            f"{how[(self.view - 1) % len(how)]}, in another part of the image than before"
        )


@dataclass(frozen=True)
class LookAgain:
    """Put right what keeps the camera from seeing."""

    trouble: str

    def words(self) -> str:
        """Return it as a person is told."""
        return self.trouble


Instruction = Hang | Mount | HoldBoard | LookAgain


class AbstractBench(AbstractBoard):
    """Where a person and a camera are; `open()` returns the id of the camera.

    Everything is called by the rig's owner thread.
    """

    @property
    @abstractmethod
    def camera(self) -> str:
        """Id of the camera, the same every time it is plugged in."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Width and height of an image, px."""

    @abstractmethod
    def ask(self, instruction: Instruction, stopped: Callable[[], bool]) -> Answer:
        """Have an instruction carried out; STOP as soon as `stopped()` is true."""

    @abstractmethod
    def tell(self, text: str) -> None:
        """Tell the person something that needs no answer."""

    @abstractmethod
    def grab(self, count: int, period_s: float) -> Sequence[AnyArray]:
        """Return the next frames, each (h, w), grey levels; raises LinkError."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    def now_us(self) -> int:
        """Return the time on the bench, microseconds."""
