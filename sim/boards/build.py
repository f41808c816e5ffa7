"""Compiles the firmware for this machine, once per version of its sources."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hil.errors import InputError

HERE = Path(__file__).resolve().parent.parent  # the package `sim`
SOURCES = ("app", "boards/host")
INCLUDES = ("app", "hal", "generated", "boards/host")
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra")


def firmware_folder() -> Path:
    """Return where the firmware's sources are: in the wheel, or in the checkout beside it.

    Raises InputError.
    """
    for folder in (HERE / "firmware", HERE.parent / "firmware"):
        if (folder / "boards" / "host").is_dir():
            return folder
    raise InputError(
        f"firmware sources: neither in {HERE / 'firmware'} nor in {HERE.parent / 'firmware'}; "
        "install the package again"
    )


def find_compiler(environ: Mapping[str, str]) -> list[str]:
    """Return the C compiler's command: $CC, else cc, else gcc; raises InputError."""
    chosen = shlex.split(environ.get("CC", ""))
    for command in [chosen] if chosen else [["cc"], ["gcc"]]:
        if shutil.which(command[0], path=environ.get("PATH")):
            return command
    name = f"$CC ({chosen[0]})" if chosen else "cc or gcc"
    raise InputError(
        f"simulated board: no C compiler, {name} is not installed; run: apt install gcc libc6-dev"
    )


def build_firmware(environ: Mapping[str, str] | None = None) -> Path:
    """Return the firmware as a program for this machine, compiled unless it is cached.

    The cache is $XDG_CACHE_HOME/hil (~/.cache/hil), by a hash of sources, flags, compiler
    and machine. Raises InputError: no sources, no compiler, or they do not compile.
    """
    environ = os.environ if environ is None else environ
    folder = firmware_folder()
    compiler = find_compiler(environ)
    sources = sorted(p for part in SOURCES for p in (folder / part).glob("*.c"))
    includes = [f"-I{folder / part}" for part in INCLUDES]
    command = [*compiler, *FLAGS, *includes, *map(str, sources)]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hil"
    digest = hashlib.sha256(f"{compiler} {FLAGS} {platform.machine()}".encode())
    for path in sorted([*sources, *folder.rglob("*.h")]):
        digest.update(f"\n{path.relative_to(folder)}\n".encode() + path.read_bytes())
    program = cache / f"host-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=program.name, suffix=".new", dir=cache)
    except OSError as error:
        raise InputError(
            f"simulated board: the cache folder {cache} cannot be written "
            f"({error.strerror}); set XDG_CACHE_HOME"
        ) from None
    os.close(handle)
    try:
        _compile([*command, "-o", name], log=program.with_suffix(".log"))
        # Two boards may build at once: each its own file, and the last rename wins.
        os.replace(name, program)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    return program


def _compile(command: list[str], log: Path) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        log.write_bytes(shlex.join(command).encode() + b"\n" + done.stdout)
        raise InputError(
            f"simulated board: the firmware does not compile with {command[0]}; see {log}"
        )
