"""Who may keep a rig powered: tokens are minted by the controlling process alone."""

from __future__ import annotations

from hil.errors import DeadmanError
from hil.rigs.base import AbstractTokens, Token


class Minting(AbstractTokens):
    """Mints a fresh token for every command; lives in the controlling process.

    life_us: how long each token keeps the outputs on, in microseconds.
    """

    def __init__(self, life_us: int) -> None:
        self.life_us = life_us
        self._sequence = 0

    def take(self, device_us: int) -> Token:
        """Return a new token valid for `life_us` from device time `device_us`."""
        self._sequence += 1
        return Token(self._sequence, device_us + self.life_us)


class Forwarded(AbstractTokens):
    """Hands on the token that came with the command being carried out, once.

    Lives in the mirror, which can pass a token on but never make one.
    """

    def __init__(self) -> None:
        self._token: Token | None = None

    def put(self, token: Token) -> None:
        """Lay down the token of the command about to be carried out."""
        self._token = token

    def take(self, device_us: int) -> Token:
        """Return the token laid down; raises DeadmanError when it is used or missing."""
        token, self._token = self._token, None
        if token is None:
            raise DeadmanError(
                "a powered command needs a token of its own from the controlling process; split "
                "the batch into parts of at most max_cases"
            )
        return token
