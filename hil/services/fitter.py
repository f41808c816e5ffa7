"""The process that follows a running loop's recording and proposes better models.

`python -m hil.services.fitter` reads a FitterJob as one JSON line from its standard input, says
that it is ready, and from then on answers every Request with one Answer, line by line. It ends
when its input does. The loop and it share a file, which one writes and the other reads.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hil.errors import HilError
from hil.models import store
from hil.models.base import AbstractLearnedDynamics
from hil.recording.follow import Follower
from hil.services.outcome import ControlRecord
from hil.training.adapt import Adapter, AdaptSettings
from hil.training.fit import Motion

NICE = 10  # a loop goes first


class FitterJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a fitter is told once."""

    settings: AdaptSettings
    model: str  # path of the model in use
    recording: str  # path of what the loop writes
    store: str  # folder for candidates
    period_us: int


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a proposal from what was recorded up to a time."""

    t_ns: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a round came to; `rejection` is empty for a candidate to be taken."""

    t_ns: int  # of the request
    rejection: str
    error: float | None = None  # of the model in use, on the newest motion
    candidate_error: float | None = None
    ridge: float | None = None
    candidate: str = ""  # path of it


class Fitter:
    """Answers requests; one model is in use, the newest motion is at hand."""

    def __init__(self, job: FitterJob) -> None:
        self._job = job
        self._adapter = Adapter(job.settings)
        self._model: AbstractLearnedDynamics = store.load(job.model).model
        self._follower = Follower(Path(job.recording))
        self._decoder = msgspec.json.Decoder(ControlRecord)
        self._coming: deque[ControlRecord] = deque()
        self._newest: deque[ControlRecord] = deque(
            maxlen=round(job.settings.window * 1e6 / job.period_us)
        )

    def answer(self, request: Request) -> Answer:
        """Return a proposal from the newest motion up to the time asked for."""
        for topic, _, text in self._follower.fresh():
            if topic == "step":
                self._coming.append(self._decoder.decode(text))
        # The loop went on meanwhile: what came after the time asked for is the next round's.
        while self._coming and self._coming[0].t_ns <= request.t_ns:
            self._newest.append(self._coming.popleft())
        motions = stretches(list(self._newest), self._job.period_us)
        if not self._adapter.enough(motions):
            seconds = [len(motion.q) * motion.period for motion in motions] or [0.0]
            said = (
                f"{sum(seconds):.2f} s in {len(motions)} stretches, newest {seconds[-1]:.2f} s; "
                f"needed: {self._job.settings.shadow:g} s at the end, "
                f"{self._job.settings.least:.2f} s in all, without short ones"
            )
            return Answer(t_ns=request.t_ns, rejection=said)
        proposal = self._adapter.propose(self._model, motions)
        candidate = ""
        if proposal.accepted:
            candidate = str(store.save(proposal.candidate, self._job.store, proposal.metadata))
            if self._job.settings.swap:
                self._model = proposal.candidate
        return Answer(
            t_ns=request.t_ns,
            rejection=proposal.rejection,
            error=proposal.error,
            candidate_error=proposal.candidate_error,
            ridge=proposal.ridge,
            candidate=candidate,
        )


def stretches(steps: Sequence[ControlRecord], period_us: int) -> list[Motion]:
    """Return the motion between missed samples, oldest first."""
    samples = np.array([step.sample for step in steps], dtype=np.int64)
    edges = np.flatnonzero(np.diff(samples) != 1) + 1
    return [
        Motion(
            period_us * 1e-6,
            np.array([steps[i].y for i in stretch]),
            np.array([steps[i].u for i in stretch]),
        )
        for stretch in np.split(np.arange(len(steps)), edges)
        if len(stretch)
    ]


def main() -> None:
    """Run as the child of a control loop."""
    if hasattr(os, "sched_setscheduler"):  # whatever who started us has asked for
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(NICE)
    line = sys.stdin.readline()
    try:
        fitter = Fitter(msgspec.json.decode(line, type=FitterJob))
        _say({"ready": os.getpid()})
        while line := sys.stdin.readline():
            _say(fitter.answer(msgspec.json.decode(line, type=Request)))
    except HilError as error:
        _say({"error": str(error)})
        print(f"fitter: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _say(words: Any) -> None:
    print(msgspec.json.encode(words).decode(), flush=True)


if __name__ == "__main__":
    main()
