"""One lease per rig: one client commands, everybody may watch."""

from __future__ import annotations

import secrets

from hil.errors import LeaseError


class LeaseDesk:
    """Gives out the lease of one rig; it expires `seconds` after the last command."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.holder = ""
        self._lease = ""
        self._expires = 0.0

    def acquire(self, client: str, now: float) -> str:
        """Return the secret that commands carry.

        now: monotonic time, s. Raises LeaseError while somebody else holds it.
        """
        self.expire(now)
        if self.holder:
            raise LeaseError(
                f"rig {self.name}: {self.holder} holds the lease for another "
                f"{self.left(now):.1f} s unless it keeps working; wait, or stop that process"
            )
        self.holder, self._lease = client, secrets.token_hex(16)
        self.renew(now)
        return self._lease

    def check(self, lease: str, call: str, now: float) -> None:
        """Raise LeaseError unless `lease` is the valid one; a valid one is renewed."""
        self.expire(now)
        if not self.holder or not secrets.compare_digest(lease.encode(), self._lease.encode()):
            holder = (
                f"{self.holder} holds it" if self.holder else "it has expired or was given back"
            )
            raise LeaseError(f"rig {self.name}: {call} needs the lease; {holder}; acquire it first")
        self.renew(now)

    def renew(self, now: float) -> None:
        """Count the lease time from now on."""
        self._expires = now + self.seconds

    def release(self) -> None:
        """Take the lease back."""
        self.holder = self._lease = ""

    def expire(self, now: float) -> bool:
        """Return whether the lease has just run out."""
        if self.holder and now >= self._expires:
            self.release()
            return True
        return False

    def left(self, now: float) -> float:
        """Return the seconds left, 0 when nobody holds it."""
        return max(0.0, self._expires - now) if self.holder else 0.0
