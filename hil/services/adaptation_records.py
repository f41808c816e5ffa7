"""What adaptation leaves in a recording and in a result."""

from __future__ import annotations

import msgspec

CHANNEL = "adaptation"  # of the recording


class AdaptationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One proposal, when it was taken or not; nothing in it is read off a wall clock."""

    seq: int
    t_ns: int  # when the loop acted on it
    time: float  # s since the loop began, up to which motion was looked at
    rejection: str  # "" for one that was accepted
    taken: bool
    error: float | None  # of the model in use: rms left over of filtered accelerations, relative
    candidate_error: float | None
    ridge: float | None
    model: str  # hash of the candidate, "" where there is none


class AdaptationOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What adaptation came to over a run."""

    proposals: int
    exchanges: int
    rejected: int
    skipped: int  # rounds for which the fitter was still busy
    error_worst: float | None  # of the model in use, by the newest motion
    error_last: float | None
    model: str  # path of the model in use at the end
    ended: str  # "" or why it ended before the loop
    rounds: list[AdaptationRecord]

    @property
    def judged(self) -> list[AdaptationRecord]:
        """The rounds in which a candidate was made."""
        return [r for r in self.rounds if r.error is not None]

    @property
    def line(self) -> str:
        """The same for a person."""
        errors = [r.error for r in self.rounds if r.error is not None]
        shown = (
            f"error {errors[0]:.3f} first, {max(errors):.3f} worst, {errors[-1]:.3f} last"
            if errors
            else "no candidate was made"
        )
        return (
            f"adaptation {self.exchanges} models exchanged, {self.rejected} rejected, "
            f"{self.skipped} rounds skipped; {shown}" + (f"; {self.ended}" if self.ended else "")
        )
