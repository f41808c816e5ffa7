"""A LUCIDAC, the analog computer one can buy, through its own client `lucipy`.

Endpoints are lucipy's: `tcp://192.168.1.9:5732`, or `emu:/`, its emulator in this process.
The client waits without end for a device that is gone, and takes a closed connection for
silence; it gets its lines from here, where every wait has an end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn
from urllib.parse import urlsplit

import numpy as np

from hil.errors import ConfigError, LinkError, PortError, RunError
from hil.links.serial import LinkCounters
from hil.types import Array

PORT = 5732
LINE_MAX = 1 << 24  # bytes
RATES = tuple(sorted(2**a * 5**b for a in range(7) for b in range(7) if 2**a * 5**b <= 1_000_000))
"""Samples per second that its DAQ can do: divisors of 10⁶."""


class LucidacLink:
    """Speaks to one LUCIDAC. One thread uses it."""

    def __init__(self, url: str, timeout: float = 2.0) -> None:
        self.url = url
        self.timeout = timeout
        self.counters = LinkCounters()
        self._lucipy: ModuleType | None = None
        self._client: Any = None
        self._emulated = False

    @property
    def is_open(self) -> bool:
        """Whether the connection stands, as far as anybody has noticed."""
        return self._client is not None

    def open(self) -> str:
        """Connect; return the device's address (MAC), its identity.

        Raises ConfigError without lucipy, PortError for an endpoint that means nothing,
        LinkError where nobody answers as a LUCIDAC does.
        """
        self.close()
        self._lucipy = lucipy = load_lucipy()
        parts = urlsplit(self.url)
        if parts.scheme not in ("tcp", "emu") or (parts.scheme == "tcp" and not parts.hostname):
            raise PortError(
                f"LUCIDAC {self.url!r}: not an endpoint; expected tcp://host:{PORT}, or emu:/"
            )
        client = lucipy.LUCIDAC("emu:/")
        if parts.scheme == "tcp":
            assert parts.hostname is not None
            lines = _Lines(parts.hostname, parts.port or PORT, self.timeout)
            client.sock = lucipy.synchc.jsonlines(lines)
        self._client = client
        try:
            entities = self._call("get_entities", client.get_entities)
        except BaseException:
            self.close()
            raise
        try:
            ((mac, carrier),) = entities.items()
            blocks = carrier["/0"]
            fits = {"/M0", "/M1", "/U", "/C", "/I"} <= set(blocks)
        except (AttributeError, KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            self.close()
            raise LinkError(f"LUCIDAC {self.url}: what answers is not a LUCIDAC")
        self._emulated = mac == lucipy.simulator.Emulation.default_emulated_mac
        return str(mac).lstrip("/")

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError):
                client.close()

    def set_circuit(self, weights: Array, constants: Array, initial: Array, fast: bool) -> None:
        """Configure integrators, ẋ = k₀ (weights @ x + constants), x(0) = initial.

        weights: (n, n), n up to 8; constants: (n,); both within ±10; initial: (n,), within
        ±1. fast: k₀ is 10⁴/s, else 10²/s. Raises RunError where there are too few lanes.
        """
        assert self._lucipy is not None
        circuit = self._lucipy.Circuit()
        integrators = [circuit.int(ic=-float(value), slow=not fast) for value in initial]
        # Integrators negate, and so do their initial conditions.
        try:
            if constants.any():
                one = circuit.const()
                for to in np.flatnonzero(constants):
                    circuit.connect(one, integrators[to], weight=-float(constants[to]))
            for to, of in np.argwhere(weights):
                weight = -float(weights[to, of])
                circuit.connect(integrators[of], integrators[to], weight=weight)
        except (ValueError, TypeError, IndexError) as error:
            raise RunError(f"LUCIDAC {self.url}: does not fit into its 32 lanes: {error}") from None
        circuit.set_adc_channels([i.out for i in integrators])
        message = circuit.generate()
        if not constants.any():
            message["/0"]["/U"]["constant"] = False
        self._call("set_circuit", lambda: self._client.set_circuit(message, reset_before=True))

    def read_circuit(self, n: int) -> tuple[Array, Array]:
        """Return weights (n, n) and constants (n,) as the device holds them."""
        assert self._lucipy is not None
        held = self._call("get_circuit", self._client_need().get_circuit)
        weights, constants = np.zeros((n, n)), np.zeros(n)
        try:
            for route in self._lucipy.Circuit().load(json.loads(json.dumps(held["config"]))).routes:
                if route.uin < n:
                    weights[route.iout, route.uin] -= route.coeff
                else:
                    constants[route.iout] -= route.coeff
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            self._lost("get_circuit", LinkError(f"a circuit nobody can read ({error})"))
        return weights, constants

    def run(
        self, op_time: float, ic_time: float, rate: int, halt_on_overload: bool
    ) -> tuple[Array, Array]:
        """Run IC, OP, HALT; return when (samples,), s of the machine, and what (samples, n).

        rate: samples per second, one of `RATES`. Fewer samples come back where the device
        halted on an overload.
        """
        client = self._client_need()
        op_ns = round(op_time * 1e9)

        def ask() -> Any:
            return client.start_run(
                op_time=op_ns, ic_time=round(ic_time * 1e9), sample_rate=rate,
                halt_on_overload=halt_on_overload,
            ).data(empty_is_fine=True)  # fmt: skip

        samples = np.array(self._call("start_run", ask), dtype=np.float64)
        period = 1.0 / rate
        if self._emulated:  # it spreads so many over the whole time, both ends included
            period = op_time / max(1, int(op_ns / 1e9 * rate) - 1)
        return np.asarray(np.arange(len(samples)) * period, dtype=np.float64), samples

    def _client_need(self) -> Any:
        if self._client is None:
            raise LinkError(f"LUCIDAC {self.url}: not connected")
        return self._client

    def _call(self, what: str, call: Callable[[], Any]) -> Any:
        """Ask; raises LinkError and closes where the answer is none, RunError for a refusal."""
        self._client_need()
        assert self._lucipy is not None
        self.counters.requests += 1
        try:
            return call()
        except self._lucipy.synchc.RemoteError as error:
            raise RunError(f"LUCIDAC {self.url}: refused {what}: {error}") from None
        except self._lucipy.synchc.LocalError as error:
            raise RunError(f"LUCIDAC {self.url}: {what} failed: {error}") from None
        except (OSError, LinkError) as error:
            self.counters.timeouts += isinstance(error, TimeoutError)
            self._lost(what, error)
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
            self._lost(what, LinkError(f"an answer nobody expected ({error!r:.80})"))

    def _lost(self, what: str, error: Exception) -> NoReturn:
        self.close()
        raise LinkError(f"LUCIDAC {self.url}: {what} failed, {error}") from None


class _Lines:
    """What lucipy takes for a socket: lines, with an end to every wait."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        try:
            self._socket = socket.create_connection((host, port), timeout)
        except OSError as error:
            raise LinkError(
                f"LUCIDAC tcp://{host}:{port}: cannot be reached ({error}); check that it is on, "
                "and its address"
            ) from None
        self._timeout = timeout
        self._buffer = b""

    def send(self, line: str) -> None:
        """Send a line."""
        self._socket.settimeout(self._timeout)
        self._socket.sendall(line.encode("utf-8") + b"\n")

    def read(self) -> str:
        """Return the next line that is not empty; raises LinkError, TimeoutError."""
        deadline = time.monotonic() + self._timeout
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if end:
                self._buffer = rest
                if line.strip():
                    return line.decode("utf-8", "replace")
                continue
            if len(line) > LINE_MAX:
                raise LinkError("a line without an end")
            self._socket.settimeout(max(1e-3, deadline - time.monotonic()))
            piece = self._socket.recv(65536)
            if not piece:
                raise LinkError("the device closed the connection")
            self._buffer += piece

    def has_data(self) -> bool:
        """Return whether a line waits; lucipy throws away what is left of an old run."""
        self._socket.settimeout(0.0)
        with contextlib.suppress(BlockingIOError):
            self._buffer += self._socket.recv(65536)
        return bool(self._buffer.partition(b"\n")[0].strip()) and b"\n" in self._buffer

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def load_lucipy() -> ModuleType:
    """Return lucipy, whose import must not set up everybody's logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import lucipy
    except ImportError:
        raise ConfigError(
            "lucipy is not installed; a LUCIDAC needs: pip install 'hil[lucidac]'"
        ) from None
    finally:
        root.handlers[:], root.level = handlers, level
    found: ModuleType = lucipy
    return found
