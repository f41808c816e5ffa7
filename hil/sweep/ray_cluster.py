"""Points on a Ray cluster, whose machines share the file system of the run directory.

Ray sends Python objects between its processes and trusts them: a cluster belongs behind its own
walls. A cluster that is started here listens on loopback, asks for a token that only this sweep
has, and ends with it.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from hil.errors import ConfigError, RunError
from hil.sweep.base import ATTEMPTS, AbstractExecutor, Reply, Task
from hil.sweep.worker import execute

LOCAL = "local"
# On Linux Ray takes 127.0.0.1 for "find an address others can reach" unless it is told that there
# are no others: a switch it has for the sake of systems that ask about firewalls.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
AHEAD = 2  # tasks in the cluster's hands for each worker, so that none waits for us


class RayExecutor(AbstractExecutor):
    """Tasks of one processor each on a Ray cluster.

    address: "HOST:PORT" of a cluster that runs, or "local" to start one on this machine.
    workers: points at once; by default the cluster's processors.
    Raises ConfigError where Ray is not installed, RunError where the cluster does not answer.
    """

    def __init__(self, address: str, workers: int | None = None) -> None:
        if address == LOCAL:
            os.environ.update(LOOPBACK)
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self._ray = ray = _library()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address == LOCAL:
            options |= {
                "num_cpus": workers or len(os.sched_getaffinity(0)),
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
            }
        try:
            ray.init(address=address, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise RunError(
                f"--ray {address}: the cluster cannot be reached: {said}; where it asks for a "
                "token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from None
        self.workers = workers or int(ray.cluster_resources().get("CPU", 1))
        self.name = f"{self.workers} workers of the Ray cluster {address}"

    def run(self, tasks: Sequence[Task]) -> Iterator[Reply]:
        """Do the tasks; see the base."""
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_told)
        waiting = deque(tasks)
        pending: dict[Any, Task] = {}
        ahead = AHEAD * self.workers
        while waiting or pending:
            while waiting and len(pending) < ahead:
                task = waiting.popleft()
                pending[remote.remote(msgspec.msgpack.encode(task))] = task
            ready, _ = ray.wait(list(pending), num_returns=1)
            for reference in ready:
                task = pending.pop(reference)
                try:
                    yield msgspec.json.decode(ray.get(reference), type=Reply)
                except ray.exceptions.RayError as error:
                    said = str(error).strip().splitlines() or [type(error).__name__]
                    yield Reply(task.index, f"Ray gave it up after {ATTEMPTS} times: {said[0]}")

    def close(self) -> None:
        """Leave the cluster; the one that was started here ends."""
        self._ray.shutdown()


def _told(task: bytes) -> bytes:
    return msgspec.json.encode(execute(msgspec.msgpack.decode(task, type=Task)))


def _library() -> Any:
    """Return Ray, told to keep to itself."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "--ray: Ray is not installed; install it with: pip install 'hil[ray]'"
        ) from None
    return ray
