"""What is said to the inference process: requests, their answers, and how it is.

Framed as on the bus (`hil.messages.bus`): one tagged Struct, then the arrays it names. Every
request is answered by exactly one of Result, Late, Busy, Rejected or Failed with its `seq`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from hil.messages.bus import ArrayRef, BusStruct, Request

HIGHEST, USUAL, LOWEST = 1, 5, 9  # priorities
Action = Literal["reject", "delay"]


class Ask(Request, tag="ask", frozen=True, kw_only=True):
    """Ask a model for one of its operations; `deadline_ns` counts beside `timeout_us`."""

    model: str
    operation: str
    inputs: tuple[ArrayRef, ...]  # (rows, …) each; one row counts for all
    priority: Annotated[int, Meta(ge=HIGHEST, le=LOWEST)] = USUAL
    timeout_us: Annotated[int, Meta(ge=0)] = 0  # in the queue, from arrival; 0: the model's
    timeout_action: Action = "reject"  # or: done after all that is still in time


class Describe(Request, tag="describe", frozen=True, kw_only=True):
    """Ask what is served, and how it is."""


class Swap(Request, tag="swap", frozen=True, kw_only=True):
    """Ask to serve another stored model under a name, after a shadow run."""

    model: str
    path: str  # of a file of the store, as the inference process sees it


InferenceRequest = Ask | Describe | Swap


class Answer(BusStruct, frozen=True, kw_only=True):
    """Every answer: the `seq` of its request and the host time."""

    seq: int
    t_ns: int


class Timing(BusStruct, tag="timing", frozen=True, kw_only=True):
    """What a request waited for."""

    queue_us: float  # from arrival until its batch was sent to be computed
    compute_us: float  # of its batch, in the worker
    total_us: float  # from arrival until answered
    batch_rows: int  # of its batch, its own included


class Result(Answer, tag="result", frozen=True, kw_only=True):
    """It was computed."""

    outputs: tuple[ArrayRef, ...]
    timing: Timing
    version: str  # of the model that answered


class Late(Answer, tag="late", frozen=True, kw_only=True):
    """Its time was over before it was begun; nothing was computed."""

    waited_us: float


class Busy(Answer, tag="busy", frozen=True, kw_only=True):
    """The queue of its priority is full; nothing was computed."""

    queued: int


class Rejected(Answer, tag="rejected", frozen=True, kw_only=True):
    """The request is wrong: asking again will not help."""

    reason: str


class Failed(Answer, tag="failed", frozen=True, kw_only=True):
    """The request was right and computing it failed."""

    reason: str


class FieldInfo(BusStruct, tag="field", frozen=True, kw_only=True):
    """One array of an operation."""

    name: str
    shape: tuple[int | str, ...]  # of a row; a text is a size the request chooses


class OperationInfo(BusStruct, tag="operation", frozen=True, kw_only=True):
    """One thing a model can be asked for."""

    name: str
    inputs: tuple[FieldInfo, ...]
    outputs: tuple[FieldInfo, ...]


class Counts(BusStruct, tag="counts", frozen=True, kw_only=True):
    """What became of the requests to one model."""

    results: int = 0
    late: int = 0
    busy: int = 0
    rejected: int = 0
    failed: int = 0
    vanished: int = 0  # answered to a client that was gone
    batches: int = 0
    rows: int = 0
    restarts: int = 0  # of the worker
    swaps: int = 0


SwapState = Literal["none", "warming", "shadow", "accepted", "refused"]


class SwapReport(BusStruct, tag="swap_report", frozen=True, kw_only=True):
    """How the newest swap stands; deviations are relative rms, largest of all outputs."""

    state: SwapState = "none"
    path: str = ""
    batches: int = 0  # compared
    deviation: float = 0.0
    slowdown: float = 0.0  # time of the candidate over that of the present model
    reason: str = ""


class ModelReport(BusStruct, tag="model_report", frozen=True, kw_only=True):
    """One model that is served."""

    name: str
    kind: str
    version: str
    device: str
    dtype: str
    ready: bool
    pid: int  # of its worker
    queued: int
    operations: tuple[OperationInfo, ...]
    counts: Counts
    swap: SwapReport
    trouble: str  # "" when there is none


class Described(Answer, tag="described", frozen=True, kw_only=True):
    """What is served."""

    name: str
    pid: int
    models: tuple[ModelReport, ...]
    malformed: int  # messages that were none


class Swapping(Answer, tag="swapping", frozen=True, kw_only=True):
    """The candidate is being warmed up; `Describe` tells how it goes on."""


InferenceAnswer = Result | Late | Busy | Rejected | Failed | Described | Swapping
