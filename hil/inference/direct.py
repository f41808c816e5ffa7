"""What is computed by the front itself: short work that would wait for nothing but the way there.

To a worker and back is one process more to wake, twice, which takes longer than a small network.
So the front has the model, too, and computes a request beside which no other came and none waits
that is as urgent, once a worker has computed one of the same shape within `direct_us`. What is new,
long or suspect goes to the worker, which may die of it; while a candidate runs in the shadow
everything does.
"""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np

from hil.errors import HilError
from hil.inference.backend import NumpyBackend, load, make_backend, warm_up
from hil.inference.queue import NEVER, Pending
from hil.inference.settings import ModelSettings
from hil.models.operation import Asked
from hil.types import AnyArray

KNOWN = 1024  # shapes of requests whose time is kept


class Direct:
    """One model in the front, loaded by a thread; until then, and where it is slow, it is none.

    Only what is computed in NumPy is: other devices have a process of their own for a reason.
    """

    def __init__(self, settings: ModelSettings, where: str) -> None:
        self._settings, self._where = settings, where
        self._backend: NumpyBackend | None = None
        self._took: dict[tuple[str, Asked], int] = {}  # ns, the last time
        self._limit = settings.direct_us * 1000
        self._loading = threading.Thread(target=self._load, name="direct", daemon=True)
        self._loading.start()

    def _load(self) -> None:
        with contextlib.suppress(HilError):  # the worker says what is wrong
            if self._limit and (self._settings.device, self._settings.dtype) == ("cpu", "float64"):
                backend = make_backend(load(self._settings, self._where)[0], self._settings, "")
                warm_up(backend, self._settings, rows=(1,))
                assert isinstance(backend, NumpyBackend)
                self._backend = backend

    def wait(self) -> None:
        """Wait until the model is there, or will not be."""
        self._loading.join()

    def learn(self, request: Pending, ns: int) -> None:
        """Keep how long a request took, alone."""
        if len(self._took) >= KNOWN:
            self._took.clear()
        self._took[request.operation.name, request.asked] = ns

    def takes(self, request: Pending) -> bool:
        """Return whether a request is for the front to compute."""
        if self._backend is None or request.attempts:
            return False
        return self._took.get((request.operation.name, request.asked), NEVER) <= self._limit

    def run(self, request: Pending) -> list[AnyArray]:
        """Return the outputs of a request; raises whatever the model does."""
        assert self._backend is not None
        rows, begin = request.asked.rows, time.perf_counter_ns()
        # Copied, since compiled code is compiled for what can be written to.
        inputs = [
            np.array(a if len(a) == rows else np.broadcast_to(a, (rows, *a.shape[1:])), dtype=float)
            for a in request.arrays
        ]
        outputs = self._backend.run(self._backend.operations[request.operation.name], inputs)
        self.learn(request, time.perf_counter_ns() - begin)
        return list(outputs)
