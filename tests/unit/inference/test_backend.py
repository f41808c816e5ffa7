"""Models of the store as what can be asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hil.errors import ConfigError, InputError
from hil.inference.backend import load, make_backend, warm_up
from hil.inference.operations import operations
from hil.inference.settings import ModelSettings
from hil.models import store
from hil.models.analytic import CartPoleModel
from tests.unit.training.emulated_digits import classifier


def test_a_stored_classifier_is_served(tmp_path: Path) -> None:
    truth = classifier()
    path = store.save(truth, tmp_path, {})
    settings = ModelSettings(path=str(path), max_batch_size=3)
    model, version = load(settings, "here")
    assert version == path.stem
    backend = make_backend(model, settings, "here")
    warm_up(backend, settings)
    operation = backend.operations["scores"]
    channels = truth.settings.channels
    signals = np.random.default_rng(0).normal(0.0, 0.1, (4, 6, channels))
    assert operation.fit([signals]) == (4, (("steps", 6),))
    (scores,) = backend.run(operation, [signals])
    assert np.array_equal(scores.argmax(1), truth.predict(signals))
    for row in range(4):  # with whom it is computed does not matter
        (alone,) = backend.run(operation, [signals[row : row + 1]])
        np.testing.assert_allclose(alone[0], scores[row], rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="signals: expected"):
        operation.fit([np.zeros((4, 6, channels + 1))])


def test_equations_are_served_without_a_file_and_have_no_domain() -> None:
    settings = ModelSettings(model={"kind": "hil.models.analytic:CartPoleModel", "length": 0.4})
    model, version = load(settings, "here")
    assert isinstance(model, CartPoleModel)
    assert model.parameters.length == 0.4
    assert version == "hil.models.analytic:CartPoleModel"
    assert "domain" not in make_backend(model, settings, "here").operations


def test_what_is_no_model_says_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="here: object cannot be served; it needs a method"):
        operations(object(), "here")
