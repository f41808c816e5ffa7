"""A circuit that runs slice by slice: ngspice in a process of its own, seen from here.

Initial conditions are in the netlist (IC); a slice with its nudges operates (OP); between two
slices the circuit stands still (HALT). What happens to ngspice happens to that process: here
it is a CircuitLostError, and the next `load` starts another one.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from hil.config import environment
from hil.errors import ConfigError, RunError
from hil.types import Array
from sim.circuits.child import LIBRARY
from sim.circuits.netlist import UNIT, Netlist
from sim.circuits.ngspice import OPTIONS, PER_STEP

PATIENCE_S = 60.0  # longest wait for a slice
END_S = 2.0


class CircuitLostError(RunError):
    """ngspice's process ended, or hung; a new one starts with the next circuit."""


def need_library() -> None:
    """Raise ConfigError where libngspice is not installed."""
    try:
        found = ctypes.util.find_library("ngspice")
    except OSError:
        found = None
    if found is None:
        raise ConfigError(f"{LIBRARY} is not installed; on Debian: apt-get install libngspice0")


class LiveCircuit:
    """One ngspice, one circuit at a time. One thread uses it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._circuit: Netlist | None = None
        self._left = 0  # slices of the circuit that is loaded

    @property
    def pid(self) -> int | None:
        """Process of ngspice; None while there is none."""
        return self._process.pid if self._process else None

    def load(
        self, circuit: Netlist, slices: int, slice_s: float, per_slice: int = PER_STEP
    ) -> None:
        """Load a circuit at its initial conditions, for so many slices of `slice_s` s.

        per_slice: steps of the solver at least in one slice.
        Raises ConfigError without libngspice, RunError where it refuses the circuit,
        CircuitLostError.
        """
        if self._left:
            self.close()  # in the middle of a run: there is no way back but a new process
        self._start()
        self._circuit = circuit
        lines = (
            "* gyro network",
            OPTIONS,
            *circuit.lines,
            *(
                f"{source} {plus} {minus} external"  # never `dc 0 external`: it crashes
                for source, (plus, minus) in zip(circuit.sources, circuit.nodes, strict=True)
            ),
            f".save {' '.join(circuit.saved)}",
            f".tran {slice_s:.12g} {slices * slice_s:.15g} 0 {slice_s / per_slice:.12g} uic",
            ".end",
        )
        saved = " ".join(name[2:-1] for name in circuit.saved)
        head = f"{slice_s:.17g}|{' '.join(circuit.sources)}|{saved}"
        self._ask(b"L", "\n".join((head, *lines)).encode("ascii"))
        self._left = slices

    def advance(self, nudges: Array) -> Array:
        """Operate for one slice; return the states (n, 4) at its end, machine units.

        nudges: (k, 2), machine units, held for the slice.
        Raises RunError where the circuit cannot be followed or no slice is left, CircuitLostError.
        """
        if self._circuit is None or not self._left:
            raise RunError("ngspice: no slice is left of this circuit; load one")
        volts = (UNIT * nudges).ravel()
        if len(volts) != len(self._circuit.sources) or not np.isfinite(volts).all():
            raise RunError(
                f"ngspice: expected {len(self._circuit.sources)} finite nudges, found {len(volts)}"
            )
        body = self._ask(b"S", volts.astype("<f8").tobytes())
        self._left -= 1
        return self._circuit.states(np.frombuffer(body, dtype="<f8"))

    def close(self) -> None:
        """End the process; may be called twice."""
        process, self._process, self._left = self._process, None, 0
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(END_S if process.poll() is None else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        need_library()
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [home, environment().get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sim.circuits.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment(), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            process_group=0,
        )

    def _ask(self, letter: bytes, body: bytes) -> bytes:
        """Send a request and return the answer; the process is ended where there is none."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(struct.pack("<I", 1 + len(body)) + letter + body)
            process.stdin.flush()
            deadline = time.monotonic() + PATIENCE_S
            (length,) = struct.unpack("<I", self._read(4, deadline))
            answer = self._read(length, deadline)
        except (OSError, EOFError) as error:
            self.close()
            status = "it hung" if isinstance(error, TimeoutError) else f"ended ({process.poll()})"
            raise CircuitLostError(f"ngspice: {status}; the circuit is gone") from None
        if answer[:1] == b"X":
            self.close()  # what it is in the middle of is of no use
            raise RunError(f"ngspice: {answer[1:].decode('utf-8', 'replace')}")
        return answer[1:]

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        data, pipe = b"", self._process.stdout.fileno()
        while len(data) < count:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            piece = os.read(pipe, count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data
