"""Asking the inference process, one question after the other or many at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from hil.errors import InputError, RunError
from hil.links.zeromq import Address, BusClient, Keys
from hil.messages import inference as said
from hil.messages.bus import ArrayRef
from hil.types import AnyArray

START_S = 5.0  # for the first answer, which tells what is served


class Outcome(NamedTuple):
    """What became of a request; the arrays are there where it is a Result."""

    answer: said.InferenceAnswer
    outputs: list[AnyArray]


class InferenceClient:
    """One connection; to be used by one thread. Raises ConfigError for an address or a key."""

    def __init__(self, address: Address, keys: Keys | None = None, name: str = "client") -> None:
        self._client = BusClient(address, "command", said.InferenceAnswer, keys, name)

    def describe(self, timeout: float = START_S) -> said.Described:
        """Return what is served and how it is; raises LinkError where nobody answers."""
        answer, _ = self._client.ask(said.Describe, timeout=timeout)
        if not isinstance(answer, said.Described):
            raise RunError(f"inference: {answer}")
        return answer

    def swap(self, model: str, path: str, timeout: float = START_S) -> None:
        """Begin to swap a model; raises InputError with the reason where it does not begin."""
        answer, _ = self._client.ask(said.Swap, timeout=timeout, model=model, path=path)
        if not isinstance(answer, said.Swapping):
            raise InputError(f"swap: {getattr(answer, 'reason', answer)}")

    def ask(
        self, model: str, operation: str, *inputs: AnyArray, timeout: float = 1.0, **more: Any
    ) -> Outcome:
        """Return what became of one request.

        inputs: float64 or float32 with leading rows, in the order of the operation. timeout: s,
        on both sides; after it the request is void. more: priority, timeout_us, timeout_action.
        Raises LinkError where no answer came in time.
        """
        fields = _fields(model, operation, inputs) | more
        answer, outputs = self._client.ask(said.Ask, *inputs, timeout=timeout, **fields)
        return Outcome(answer, outputs)  # type: ignore[arg-type]

    def send(
        self, model: str, operation: str, *inputs: AnyArray, timeout: float = 1.0, **more: Any
    ) -> int:
        """Send a request as `ask` does, and return its number without waiting."""
        fields = _fields(model, operation, inputs) | more
        return self._client.send(said.Ask, *inputs, timeout=timeout, **fields)

    def receive(self, timeout: float) -> Outcome:
        """Return the next answer to what was sent; raises TimeoutError."""
        return Outcome(*self._client.receive(timeout))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _fields(model: str, operation: str, inputs: tuple[AnyArray, ...]) -> dict[str, Any]:
    refs = tuple(map(ArrayRef.of, inputs))
    return {"model": model, "operation": operation, "inputs": refs}


def results(outcome: Outcome) -> list[AnyArray]:
    """Return the outputs of a Result.

    Raises InputError for a rejected request, RunError for one that was not computed.
    """
    answer = outcome.answer
    if isinstance(answer, said.Result):
        return outcome.outputs
    if isinstance(answer, said.Rejected):
        raise InputError(f"inference: {answer.reason}")
    if isinstance(answer, said.Late):
        raise RunError(f"inference: late after {answer.waited_us:.0f} us; nothing was computed")
    if isinstance(answer, said.Busy):
        raise RunError(f"inference: busy, {answer.queued} requests wait already")
    raise RunError(f"inference: {getattr(answer, 'reason', answer)}")


def model_of(described: said.Described, name: str) -> said.ModelReport:
    """Return one of the models that are served; raises InputError naming those there are."""
    found = {model.name: model for model in described.models}
    if name not in found:
        raise InputError(f"inference: no model {name!r}; served: {', '.join(found)}")
    return found[name]
