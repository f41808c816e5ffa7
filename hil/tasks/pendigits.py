"""PenDigits: 10 992 digits written by 44 people on a tablet, as eight points each.

Alpaydin & Alimoglu, UCI Machine Learning Repository (1998), CC BY 4.0. The official split:
7494 strokes of 30 writers to learn from, 3498 of 14 others to test. Who wrote what is not in
the files and their order is shuffled, so a validation part shares its writers with training.
"""

from __future__ import annotations

import hashlib
import io
import os
import urllib.request
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple
from urllib.error import URLError

import numpy as np
from msgspec import Meta

from hil.config import environment
from hil.errors import ConfigError
from hil.tasks.strokes import POINTS, AbstractStrokes, StrokeSettings, checked_strokes, even_split
from hil.types import Array, IntArray

SOURCE = "https://archive.ics.uci.edu/ml/machine-learning-databases/pendigits/"
TIMEOUT_S = 30.0


class File(NamedTuple):
    """One file of the data set."""

    name: str
    rows: int
    sha256: str


TRAIN = File(
    "pendigits.tra", 7494, "e2b9eb9f0d0467e2b64a4816a3420edf2b8043447576f4b84337aba44a9f97d3"
)
TEST = File(
    "pendigits.tes", 3498, "8bd03229c5c5291fefe43e45465dd948d2645bf23328b9d993e0b777666b2015"
)


class PendigitsSettings(StrokeSettings, frozen=True, kw_only=True):
    """Where the files are."""

    directory: Annotated[
        str, Meta(description="with pendigits.tra and .tes; default $HIL_DATA/pendigits")
    ] = ""
    download: Annotated[
        bool, Meta(description="fetch files that are missing from UCI into the directory")
    ] = False


class Pendigits(AbstractStrokes):
    """The ten digits by the pen's path; raises ConfigError where the files are not."""

    Settings: ClassVar[type[PendigitsSettings]] = PendigitsSettings

    def __init__(self, settings: PendigitsSettings, *, seed: int = 0) -> None:
        self._settings = settings
        directory = place(settings)
        parts = [read(directory, file, settings.download) for file in (TRAIN, TEST)]
        self._strokes = np.concatenate([strokes for strokes, _ in parts])
        self._labels = np.concatenate([labels for _, labels in parts])
        known = parts[0][1]
        self._train, self._validation = even_split(known, settings.validation, seed)
        self._test = np.arange(len(known), len(self._labels), dtype=np.int64)

    @property
    def settings(self) -> PendigitsSettings:
        """Where the files are, and how strokes become signals."""
        return self._settings

    @property
    def strokes(self) -> Array:
        """Every stroke, the official training part first."""
        return self._strokes

    @property
    def train(self) -> IntArray:
        """What is learned from: the official training part without `validation`."""
        return self._train

    @property
    def validation(self) -> IntArray:
        """What settings are chosen on: a part of the official training part."""
        return self._validation

    @property
    def test(self) -> IntArray:
        """The official test part: other writers."""
        return self._test

    def labels(self, batch: IntArray) -> IntArray:
        """Return the digit of each sample."""
        return self._labels[batch]


def place(settings: PendigitsSettings) -> Path:
    """Return the directory of the files; raises ConfigError where none is named."""
    if settings.directory:
        return Path(settings.directory)
    data = environment().get("HIL_DATA", "")
    if not data:
        raise ConfigError(
            "task.directory: PenDigits is not part of hil; name the directory of pendigits.tra "
            "and pendigits.tes, or set HIL_DATA to the one above it, or "
            "`--set task.directory=DIR --set task.download=true` to fetch 0.7 MB from UCI"
        )
    return Path(data) / "pendigits"


def read(directory: Path, file: File, download: bool = False) -> tuple[Array, IntArray]:
    """Return strokes (n, POINTS, 2), 0 to 100, and digits (n,) of a file.

    Raises ConfigError where it is missing or its bytes are not the ones that were published.
    """
    path = directory / file.name
    if download and not path.exists():
        fetch(path, file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; set task.directory or HIL_DATA, or task.download=true"
        ) from None
    check(content, file, str(path))
    table = np.loadtxt(io.BytesIO(content), delimiter=",", dtype=np.int64)
    if table.shape != (file.rows, 2 * POINTS + 1):
        raise ConfigError(f"{path}: {table.shape}, expected ({file.rows}, {2 * POINTS + 1})")
    strokes = table[:, :-1].reshape(-1, POINTS, 2).astype(np.float64)
    return checked_strokes(strokes, str(path)), table[:, -1]


def check(content: bytes, file: File, where: str) -> None:
    """Raise ConfigError where the bytes are not those of the published file."""
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise ConfigError(
            f"{where}: SHA-256 {found[:12]}…, expected {file.sha256[:12]}…; "
            "the file is another one or was changed, fetch it again"
        )


def fetch(path: Path, file: File) -> None:
    """Download a file; it appears whole and with the right hash, or not at all.

    Raises ConfigError.
    """
    url = SOURCE + file.name
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - fixed https
            content: bytes = answer.read()
    except (URLError, OSError) as error:
        raise ConfigError(f"{url}: cannot be fetched: {error}") from None
    check(content, file, url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{os.getpid()}-{path.name}")
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
