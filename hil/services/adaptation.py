"""A loop whose model follows its rig: asking the fitter, judging, exchanging between periods.

    loop ── recording ──▶ fitter ── candidate, in the store ──▶ made ready here ──▶ exchanged
         ── "up to t" ──▶        ── accepted, or why not ─────▶ recorded

Three threads of control, none of which waits for another under the wall clock: the loop, which
says "propose" every so often and looks whether an answer has come; a thread that reads the
fitter's answers and makes estimator and controller of a new model; the fitter, a process of its
own. Under the virtual clock an answer is taken exactly `answer` seconds of plant time after it
was asked for, and the plant stands still until it is there: the same bytes every time.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
from threadpoolctl import threadpool_limits

from hil.config import Config, environment
from hil.control.base import AbstractController, AbstractEstimator
from hil.errors import HilError, RunError
from hil.loop import ControlStep
from hil.models import store
from hil.models.stored import StoredModel
from hil.recording.run import Run
from hil.recording.writer import Recorder
from hil.services.adaptation_records import CHANNEL, AdaptationOutcome, AdaptationRecord
from hil.services.fitter import Answer, FitterJob, Request
from hil.services.parts import Parts

START_S = 60.0  # for the fitter to be ready, and for an answer under the virtual clock
END_S = 10.0  # for it to end by itself
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # the others are the loop's
SWITCH_S = 5e-4  # longest time one thread keeps the interpreter; Python's own is 5 ms


class _Ready(NamedTuple):
    """An answer, and what is to take over, made ready."""

    answer: Answer
    parts: tuple[AbstractEstimator, AbstractController] | None


class Adaptation:
    """The loop's side of online adaptation; a context manager around the fitter.

    Entering raises RunError where the fitter does not start; its words are in fitter.log.
    """

    def __init__(self, config: Config, parts: Parts, run: Run, say: Callable[[str], None]) -> None:
        assert parts.adapt is not None
        assert parts.exchange is not None
        assert isinstance(parts.model, StoredModel)
        self.settings = parts.adapt
        self._parts, self._exchange, self._say = parts, parts.exchange, say
        self._virtual = config.clock == "virtual"
        self._job = FitterJob(
            settings=self.settings,
            model=parts.model.path,
            recording=str(run.next_part()),
            store=str(run.path / "models"),
            period_us=round(parts.period_s * 1e6),
        )
        self._log = run.path / "fitter.log"
        self._every = max(1, round(self.settings.every / parts.period_s))
        self._granted = max(1, round(self.settings.answer / parts.period_s))
        self._answers: queue.Queue[_Ready | str] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._asked_at: int | None = None  # period, of the request that is open
        self._model = parts.model.path
        self._rounds: list[AdaptationRecord] = []
        self._skipped, self._ended = 0, ""

    def __enter__(self) -> Self:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hil.services.fitter"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**environment(), **ONE_THREAD},
                start_new_session=True,  # ctrl-C is for us: we end it in order
            )
        self._send(self._job)
        # Threads of BLAS wait for each other: solving 4 × 4 takes 14 ms then, not 10 us.
        self._blas = threadpool_limits(1)
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        self._reader = threading.Thread(target=self._read, name="adaptation")
        self._reader.start()
        try:
            first = self._answers.get(timeout=START_S)
        except queue.Empty:
            first = f"it did not start within {START_S:g} s"
        if isinstance(first, str) and first:
            self.close()
            raise RunError(f"adaptation: {first}; its words are in {self._log}")
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the fitter and wait for it; may be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        sys.setswitchinterval(self._switch)
        self._blas.restore_original_limits()
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join()
        assert process.stdout is not None
        process.stdout.close()

    def after(self, number: int, step: ControlStep, t_ns: int, recorder: Recorder) -> None:
        """Act between two periods: ask, look for an answer, exchange.

        number: of the period, from 1; t_ns: its time in the recording.
        """
        if self._ended:
            return
        if self._asked_at is not None:
            self._look(number, t_ns, recorder)
        if number % self._every == 0:
            if self._asked_at is not None:
                self._skipped += 1
                return
            recorder.flush()  # what the fitter is to see is on disk
            self._asked_at = number
            try:
                self._send(Request(t_ns))
            except OSError as error:
                self._end(f"the fitter is gone: {error.strerror}")

    @property
    def outcome(self) -> AdaptationOutcome:
        """What it came to so far."""
        errors = [r.error for r in self._rounds if r.error is not None]
        return AdaptationOutcome(
            proposals=len(self._rounds),
            exchanges=sum(r.taken for r in self._rounds),
            rejected=sum(bool(r.rejection) for r in self._rounds),
            skipped=self._skipped,
            error_worst=max(errors, default=None),
            error_last=errors[-1] if errors else None,
            model=self._model,
            ended=self._ended,
            rounds=list(self._rounds),
        )

    def _look(self, number: int, t_ns: int, recorder: Recorder) -> None:
        assert self._asked_at is not None
        if self._virtual and number < self._asked_at + self._granted:
            return
        try:
            found = self._answers.get(self._virtual, START_S)
        except queue.Empty:
            if self._virtual:
                self._end(f"the fitter did not answer within {START_S:g} s")
            return
        asked_at, self._asked_at = self._asked_at, None
        if isinstance(found, str):
            self._end(found)
            return
        answer = found.answer
        if found.parts is not None:
            self._exchange.take(*found.parts)
            self._model = answer.candidate
            self._say(
                f"adaptation: another model at {t_ns / 1e9:.2f} s, error "
                f"{answer.error:.3f} -> {answer.candidate_error:.3f}"
            )
        done = AdaptationRecord(
            seq=len(self._rounds) + 1,
            t_ns=t_ns,
            time=asked_at * self._job.period_us * 1e-6,
            rejection=answer.rejection,
            taken=found.parts is not None,
            error=answer.error,
            candidate_error=answer.candidate_error,
            ridge=answer.ridge,
            model=Path(answer.candidate).stem,
        )
        self._rounds.append(done)
        recorder.write(CHANNEL, done, t_ns)

    def _end(self, why: str) -> None:
        self._ended = why or "the fitter ended"
        self._say(f"adaptation ended: {self._ended}; the loop goes on with the model it has")

    def _send(self, words: msgspec.Struct) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(words).decode() + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        """Hand on what the fitter says; the thread of the answers."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = msgspec.json.decode(line)
            if "error" in words and "t_ns" not in words:
                self._answers.put(str(words["error"]))
            elif "ready" in words:
                self._answers.put("")
            else:
                answer = msgspec.convert(words, Answer)
                try:
                    self._answers.put(_Ready(answer, self._made(answer)))
                except HilError as error:  # a model no controller can be made of is no better
                    said = msgspec.structs.replace(answer, rejection=str(error))
                    self._answers.put(_Ready(said, None))
        self._answers.put("the fitter ended")

    def _made(self, answer: Answer) -> tuple[AbstractEstimator, AbstractController] | None:
        """Return estimator and controller of what is to take over, made ready."""
        if answer.rejection or not answer.candidate or not self.settings.swap:
            return None
        return self._parts.around(store.load(answer.candidate).model)
