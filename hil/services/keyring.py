"""CURVE keys: the mirror's own, and one file per client in the directory of its role."""

from __future__ import annotations

from pathlib import Path

import zmq.auth

from hil.errors import InputError


def make(directory: Path, client: str, role: str) -> list[Path]:
    """Make the mirror's keys where they are missing, and a client's; return the new files.

    The client's secret goes to `<directory>/<client>.key_secret`, to be moved to the
    client's machine as `client.key_secret` beside a copy of `mirror.key`.
    Raises InputError when the client has a key already.
    """
    made: list[Path] = []
    try:
        (directory / role).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (directory / "mirror.key_secret").exists():
            made += map(Path, zmq.auth.create_certificates(directory, "mirror"))
        if (directory / f"{client}.key_secret").exists():
            raise InputError(f"{directory}/{client}.key_secret: exists; choose another --client")
        public, secret = map(Path, zmq.auth.create_certificates(directory, client))
        public = public.rename(directory / role / public.name)
        for path in directory.glob("*.key_secret"):
            path.chmod(0o600)
    except OSError as error:
        raise InputError(f"{directory}: keys cannot be made: {error}") from None
    return [*made, public, secret]
