"""A spring network without actuators: a person hangs weights, a camera sees what moves.

The bench of Li & Mao 2024. `settle` says which weight to hang where, waits, and looks;
`set_stiffness` says which struts to print and mount. What cannot be had exactly is rounded
to what lies in the drawer, and what was really applied is returned.

In the exact regime an elongation is the change of a strut's true length, from the places of
its two nodes: what the strut itself feels, also where the network turns. In the linear regime
it is compat · displacement, as the linear theory has it.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from hil.errors import ConfigError, DeadmanError, FaultError, MeasurementError
from hil.links.camera import opencv
from hil.mechanics.finite_springs import make_statics
from hil.mechanics.geometry import make_geometry
from hil.rigs.base import (
    AbstractStaticRig,
    AbstractTokens,
    Lifecycle,
    MeasuredEquilibrium,
    RigInfo,
    RigState,
    join,
    microseconds,
)
from hil.rigs.bench import (
    AbstractBench,
    Answer,
    Hang,
    Instruction,
    LookAgain,
    MarkerSettings,
    Mount,
    Strut,
)
from hil.rigs.device_clock import DeviceClock
from hil.rigs.settings import StaticRigSettings
from hil.rigs.stock import Drawer, Struts, Weights, check_widths
from hil.rigs.terminal_bench import CameraSettings, TerminalBench
from hil.types import Array, ClockKind

if TYPE_CHECKING:
    from hil.vision.tracking import Sight, Tracker

T = TypeVar("T")
REGISTRATION = 4  # times as many frames as a load case: every displacement is from there


class ManualRigSettings(StaticRigSettings, frozen=True, kw_only=True):
    """The rig table of a bench without actuators."""

    camera: CameraSettings = CameraSettings()
    markers: MarkerSettings = MarkerSettings()
    weights: Weights = Weights()
    struts: Struts = Struts()
    mounted: Annotated[str, Meta(description="file that remembers the struts; none: ask")] = ""
    patience: Annotated[
        float, Meta(gt=0, le=86400, description="longest a person takes for one thing, s")
    ] = 3600.0
    tries: Annotated[int, Meta(ge=1, le=100, description="looks before a sight is given up")] = 3


class ManualRig(AbstractStaticRig):
    """Settles a spring network by the hands of a person, and reads it with a camera.

    tokens: where each load case takes its token from (no output is powered here: the token
    says that the one who asks is alive); bench: where the person and the camera are, None
    for this terminal and the configured camera. port is taken because other rigs take it.
    """

    Settings: ClassVar[type[ManualRigSettings]] = ManualRigSettings

    def __init__(
        self,
        settings: ManualRigSettings,
        *,
        tokens: AbstractTokens,
        clock: ClockKind = "wall",
        port: str = "",
        bench: AbstractBench | None = None,
    ) -> None:
        self.settings = settings
        self.statics = make_statics(make_geometry(settings.geometry, Path.cwd()), settings.regime)
        self.network = self.statics.linear
        self._pruned = settings.pruned_bonds(self.network)
        if self.network.geometry.dimensions != 2:
            raise ConfigError("rig.geometry: a camera sees a network in a plane, with x and y")
        if settings.calibration != "none":
            raise ConfigError(
                f"rig.calibration: {settings.calibration!r}: a camera's calibration is its lens "
                "(rig.camera.lens); leave it at none"
            )
        check_widths(settings.struts)
        settings.max_cases(1)  # refuse a watchdog that is too short here already
        self.clock = DeviceClock(clock)
        self.bench = bench or TerminalBench(settings.camera)
        geometry = self.network.geometry
        span = geometry.nodes[geometry.bonds[:, 1]] - geometry.nodes[geometry.bonds[:, 0]]
        self._drawer = Drawer(settings.weights, settings.struts, np.linalg.norm(span, axis=1))
        self._life = Lifecycle(settings.name)
        self._tokens = tokens
        self._token = self._cases = 0
        self._stop = threading.Event()
        self._stop_reason = ""
        self._widths = np.full(self.network.bond_count, settings.struts.start)  # mm
        self._widths[self._pruned] = 0.0
        self._known = False  # whether somebody looked at the struts
        self._hanging = np.zeros(self.network.dof)  # N
        self._tracker: Tracker | None = None

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self._life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self._life.fault

    def configure(self) -> RigInfo:
        """Open the camera and take its lens; raises PortError, ConfigError."""
        self._life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
        opencv()
        tracking = importlib.import_module("hil.vision.tracking")
        settings, bench = self.settings, self.bench
        bench.open()
        try:
            self._tracker = tracking.Tracker(self._lens(), self._layout(), settings.markers)
            self._remember()
        except Exception:
            bench.close()
            raise
        self._stop.clear()
        self._life.cleared()
        self._observe()
        case = settings.patience + settings.case_us / 1e6
        return RigInfo(
            name=self._life.name,
            device_id=bench.camera,
            dof=self.network.dof,
            bonds=self.network.bond_count,
            max_cases=1,  # a stop and a token between any two things a person does
            case_us=microseconds(case * settings.tries),
            watchdog_us=microseconds(settings.watchdog),
            stiffness_limits=settings.stiffness,
            force_limit=settings.force_max,
            details={"board": "none, by hand", "lens": settings.camera.lens or "not calibrated"},
        )

    def activate(self) -> None:
        """Have every weight taken off and look at the network as it is then."""
        self._life.require("activate", RigState.INACTIVE)
        if not self._known:
            self._mount(self._widths, check=True)
        empty = np.zeros(self.network.dof)
        self._ask(Hang((), empty))
        self._hanging = empty
        self.bench.wait(self.settings.settle)
        count = REGISTRATION * self.settings.samples
        tracker = self.tracker
        found = self._patiently(
            lambda: tracker.register(self.bench.grab(count, self.settings.sample_period))
        )
        self.bench.tell(
            f"camera {self.bench.camera}: {len(found.pixels)} markers, {found.scale / 1e3:.2f} "
            f"px/mm, noise {found.noise:.3f} px in one frame"
        )
        self._life.state = RigState.ACTIVE
        self._observe()

    def deactivate(self) -> None:
        """Let the weights be taken off."""
        self._life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
        if self._hanging.any():
            self.bench.tell("take every weight off")
        self._life.state = RigState.INACTIVE

    def stop(self, reason: str = "stopped by hand") -> None:
        """Have whatever is waited for end in a fault; from any thread."""
        self._stop_reason = reason
        self._stop.set()

    def clear(self) -> None:
        """Leave fault for inactive; the camera is registered anew with `activate()`."""
        self._life.require("clear", RigState.FAULT, RigState.INACTIVE)
        self._stop.clear()
        self._life.cleared()

    def close(self) -> None:
        """Let go of the camera."""
        self.bench.close()
        self._life.state = RigState.UNCONFIGURED

    def poll(self) -> None:
        """Act on a stop."""
        if self._stop.is_set() and self._life.state in (RigState.INACTIVE, RigState.ACTIVE):
            self._life.latch(self._stop_reason)

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Have each load case hung and look at it; `applied` says what really hung.

        Raises MeasurementError when the camera does not see what it must.
        """
        self.poll()
        self._life.require("settle", RigState.ACTIVE)
        return join([self._case(load) for load in loads])

    def set_stiffness(self, stiffness: Array) -> Array:
        """Have struts mounted; return the stiffness of what is mounted then: (bonds,), N/m."""
        self.poll()
        self._life.require("set_stiffness", RigState.ACTIVE)
        wanted = self._drawer.nearest_width(stiffness)
        wanted[self._pruned] = 0.0
        if (wanted != self._widths).any():
            self._mount(wanted)
        return self._drawer.stiffness(self._widths)

    def read_stiffness(self) -> Array:
        """Return the stiffness of what is mounted: (bonds,), N/m."""
        self.poll()
        self._life.require("read_stiffness", RigState.INACTIVE, RigState.ACTIVE)
        return self._drawer.stiffness(self._widths)

    @property
    def tracker(self) -> Tracker:
        """What finds the nodes in frames; there from `configure()` on."""
        assert self._tracker is not None
        return self._tracker

    # -- one load case ------------------------------------------------------------------

    def _case(self, load: Array) -> MeasuredEquilibrium:
        self._take_token()
        geometry, settings = self.network.geometry, self.settings
        wanted = self._drawer.nearest_load(load)
        strings = self._drawer.strings(wanted, geometry.dof_table)
        self._cases += 1
        if self._ask(Hang(strings, wanted, self._cases)) is Answer.DONE:
            self._hanging = wanted
        self.bench.wait(settings.settle)
        sight = self._patiently(self._look)
        granted = settings.settle_timeout
        settled = not 0 < settings.drift_max < sight.drift
        while not settled and granted > 0:
            granted -= max(settings.settle, settings.samples * settings.sample_period)
            self.bench.wait(settings.settle)
            sight = self._patiently(self._look)
            settled = not settings.drift_max < sight.drift
        self._observe()
        registration = self.tracker.registration
        assert registration is not None
        displacement = (sight.nodes - registration.nodes).ravel()[geometry.free_dofs]
        if settings.regime == "exact":
            first, second = geometry.bonds.T
            elongation = _length(sight.nodes[second] - sight.nodes[first]) - _length(
                registration.nodes[second] - registration.nodes[first]
            )
        else:
            elongation = self.network.compat @ displacement
        return MeasuredEquilibrium(
            displacement=displacement[None],
            elongation=np.asarray(elongation)[None],
            device_us=self.clock.now_us(),
            settled=settled,
            applied=self._hanging[None],
        )

    def _look(self) -> Sight:
        registration = self.tracker.registration
        assert registration is not None
        model = self.statics.settle(self._drawer.stiffness(self._widths), self._hanging)
        predicted = registration.nodes.copy().ravel()
        predicted[self.network.geometry.free_dofs] += model.displacement
        frames = self.bench.grab(self.settings.samples, self.settings.sample_period)
        sight = self.tracker.locate(frames, predicted.reshape(-1, 2))
        if sight.moved:
            self.bench.tell(
                f"camera {self.bench.camera} was bumped by {sight.moved:.1f} px; the reference "
                f"markers say to where ({sight.residual:.2f} px rms), it goes on from there"
            )
        return sight

    def _patiently(self, look: Callable[[], T]) -> T:
        """Look; where the camera does not see, have the person put it right and look again."""
        for left in range(self.settings.tries - 1, -1, -1):
            try:
                return look()
            except MeasurementError as error:
                if not left or self._ask(LookAgain(str(error))) is Answer.SKIP:
                    raise
        raise AssertionError("unreachable: the last look returned or raised")

    def _mount(self, wanted: Array, check: bool = False) -> None:
        bonds = self.network.geometry.bonds
        struts = tuple(
            Strut(b, (int(bonds[b, 0]), int(bonds[b, 1])), float(wanted[b]), float(was))
            for b, was in enumerate(self._widths)
            if check or wanted[b] != was
        )
        if self._ask(Mount(struts, wanted, self._drawer.stiffness(wanted), check)) is Answer.DONE:
            self._widths = wanted
        self._known = True
        if self.settings.mounted:
            Path(self.settings.mounted).write_bytes(msgspec.json.encode(self._widths.tolist()))

    def _ask(self, instruction: Instruction) -> Answer:
        """Have something done; a stop is a fault."""
        answer = self.bench.ask(instruction, self._stop.is_set)
        if answer is Answer.STOP:
            self._life.latch(self._stop_reason if self._stop.is_set() else "stopped at the bench")
            raise FaultError(
                f"rig {self._life.name}: {self._life.fault} while a person was asked; take the "
                "weights off; clear() and activate() lead on"
            )
        return answer

    def _take_token(self) -> None:
        token = self._tokens.take(self.clock.now_us())
        if token.sequence <= self._token or token.valid_until_us <= self.clock.now_us():
            raise DeadmanError(
                f"rig {self._life.name}: token {token.sequence} refused: it was used or has run "
                "out; nothing was asked of the person"
            )
        self._token = token.sequence

    # -- what is known of the bench -----------------------------------------------------

    def _observe(self) -> None:
        self.clock.observe(self.bench.now_us())

    def _layout(self) -> Any:
        tracking = importlib.import_module("hil.vision.tracking")
        geometry, markers = self.network.geometry, self.settings.markers
        return tracking.Layout(
            geometry.nodes, geometry.bonds, geometry.fixed, np.array(markers.frame), markers.radius
        )

    def _lens(self) -> Any:
        lens = importlib.import_module("hil.vision.lens")
        if not self.settings.camera.lens:
            return lens.Lens.none(self.bench.camera, self.bench.size)
        found = lens.read_lens(Path(self.settings.camera.lens))
        found.check(self.bench.camera, self.bench.size)
        return found

    def _remember(self) -> None:
        """Take the struts from the file that remembers them; raises ConfigError."""
        if self._known or not self.settings.mounted or not Path(self.settings.mounted).exists():
            return
        path = Path(self.settings.mounted)
        try:
            found = np.array(msgspec.json.decode(path.read_bytes(), type=list[float]))
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"rig.mounted: {path} is no list of widths: {error}") from None
        there = np.append(self._drawer.widths, 0.0)
        cut = np.isin(np.arange(len(found)), self._pruned)
        fits = found.shape == self._widths.shape and np.isin(found, there).all()
        if not fits or ((found == 0) != cut).any():
            raise ConfigError(
                f"rig.mounted: {path} tells of {len(found)} struts, the network has "
                f"{len(self._widths)}, of widths in rig.struts.widths; remove the file to be "
                "asked about every strut"
            )
        self._widths, self._known = found, True


def _length(span: Array) -> Array:
    return np.asarray(np.linalg.norm(span, axis=1))
