"""Models on disk: the same bits come back, and nothing else is taken for a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from hil.errors import ConfigError
from hil.models import store
from hil.models.fnode import FnodeModel
from hil.types import AnyArray
from tests.unit.models.test_fnode import VARIANTS, make

METADATA = {"seed": 3, "data_sha256": "ab" * 32}


def written(folder: Path, arrays: dict[str, AnyArray], header: dict[str, str]) -> Path:
    """Return a file with a true hash for a name and the given content."""
    content = serialise(arrays, header)
    path = folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
    path.write_bytes(content)
    return path


def about(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + length])["__metadata__"]["hil"]
    found: dict[str, object] = json.loads(text)
    return found


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_same_bits_come_back(settings: object, tmp_path: Path) -> None:
    model = make(settings)  # type: ignore[arg-type]
    path = store.save(model, tmp_path / "models", METADATA)
    loaded, metadata = store.load(path)
    assert isinstance(loaded, FnodeModel)
    assert loaded.settings == model.settings
    x, u = np.linspace(-0.5, 0.5, model.nx), np.linspace(-1, 1, model.nu)
    for before, after in zip(model.linearise(x, u), loaded.linearise(x, u), strict=True):
        assert np.array_equal(before, after)
    assert model.domain(x, u) == loaded.domain(x, u)
    assert metadata["training"] == METADATA
    assert metadata["versions"]["numpy"] == np.__version__


def test_the_name_is_the_hash_of_the_content(tmp_path: Path) -> None:
    path = store.save(make(VARIANTS[0]), tmp_path, METADATA)
    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest() + ".safetensors"
    assert store.save(make(VARIANTS[0]), tmp_path, METADATA) == path
    assert store.save(make(VARIANTS[0]), tmp_path, {**METADATA, "seed": 4}) != path
    assert store.save(make(VARIANTS[0], seed=9), tmp_path, METADATA) != path
    assert len(list(tmp_path.iterdir())) == 3, "something half-written is left"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = store.save(make(VARIANTS[0]), tmp_path, METADATA)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="was changed"):
        store.load(path)


def test_a_file_without_its_own_name_is_refused(tmp_path: Path) -> None:
    path = store.save(make(VARIANTS[0]), tmp_path, METADATA)
    with pytest.raises(ConfigError, match="SHA-256"):
        store.load(path.rename(tmp_path / "best.safetensors"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.safetensors: no model .*No such file"):
        store.load(tmp_path / "absent.safetensors")


def test_other_content_is_refused(tmp_path: Path) -> None:
    path = store.save(make(VARIANTS[0]), tmp_path, METADATA)
    arrays, kept = parse(path.read_bytes()), about(path)
    wide = {**arrays, "offset": np.zeros(3)}
    single = {**arrays, "offset": np.zeros(2, dtype=np.float32)}
    fewer = {name: array for name, array in arrays.items() if name != "skip"}
    cases = [
        (arrays, {}, "not a model of this program"),
        (wide, {"hil": json.dumps(kept)}, r"offset: expected float64 \(2,\), found float64 \(3,\)"),
        (single, {"hil": json.dumps(kept)}, "found float32"),
        (fewer, {"hil": json.dumps(kept)}, "missing or unknown: skip"),
        (arrays, {"hil": json.dumps({**kept, "format": 99})}, "format 99"),
        (arrays, {"hil": json.dumps({**kept, "kind": "os:system"})}, "is not allowed"),
        (arrays, {"hil": json.dumps({**kept, "kind": "hil.training.fit:Fit"})}, "not a model"),
        (arrays, {"hil": json.dumps({**kept, "settings": {"nq": 2}})}, "settings: .*nu"),
    ]
    for content, header, message in cases:
        with pytest.raises(ConfigError, match=message):
            store.load(written(tmp_path, content, header))
    nothing = tmp_path / f"{hashlib.sha256(b'').hexdigest()}.safetensors"
    nothing.write_bytes(b"")
    with pytest.raises(ConfigError, match="not a model of this program"):
        store.load(nothing)


@pytest.mark.parametrize("value", [object(), float("nan"), np.zeros(2)])
def test_metadata_that_is_not_json_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not JSON"):
        store.save(make(VARIANTS[0]), tmp_path, {"value": value})


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file: a model cannot be written"):
        store.save(make(VARIANTS[0]), tmp_path / "file", METADATA)
