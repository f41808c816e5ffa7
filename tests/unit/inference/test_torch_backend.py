"""Torch against the models' own NumPy: value, Jacobian, rollouts; padding is seen by nobody."""

from __future__ import annotations

import numpy as np
import pytest

from hil.errors import ConfigError
from hil.inference.backend import NumpyBackend, make_backend, warm_up
from hil.inference.settings import ModelSettings
from hil.models.base import AbstractDynamics
from hil.models.linear import LinearModel
from hil.models.rollouts import TURN
from tests.contract.test_models import from_the_store, untrained_fnode, untrained_mechanical

pytest.importorskip("torch", reason="torch is not installed (extra `gpu`)")

from hil.inference.torch_backend import TorchBackend, padded  # needs torch

MODELS = {"free": untrained_fnode, "mechanical": untrained_mechanical, "stored": from_the_store}


def settings(dtype: str = "float32", device: str = "cpu") -> ModelSettings:
    return ModelSettings(path="x", dtype=dtype, device=device, max_batch_size=4)  # type: ignore[arg-type]


@pytest.fixture(params=MODELS, ids=str)
def model(request: pytest.FixtureRequest) -> AbstractDynamics:
    return MODELS[request.param]()


@pytest.mark.parametrize("fixed", [False, True], ids=["as it comes", "fixed shapes"])
def test_every_operation_is_that_of_the_model(model: AbstractDynamics, fixed: bool) -> None:
    mine = TorchBackend(model, settings(), "here", fixed=fixed)
    truth = NumpyBackend(model, "here")
    assert mine.operations == truth.operations
    random = np.random.default_rng(0)
    for rows in (5, 3, 5):  # the second is shorter than the shape the first left behind
        for name, operation in truth.operations.items():
            inputs = [
                random.normal(0.0, 1.0, (rows, *f.sized((("N", 6), ("n", 4)))))
                for f in operation.inputs
            ]
            given = dict(zip([f.name for f in operation.inputs], inputs, strict=True))
            if "dt" in given:
                given["dt"][:] = 0.02
            if name == "follow":
                given["turn"][:] = [TURN, 0.0, 0.0, 0.0]
                for limits in ("input_limits", "state_limits"):
                    given[limits].sort(axis=1)
            wanted = truth.run(operation, inputs)
            found = mine.run(mine.operations[name], [array.astype("f4") for array in inputs])
            for got, want in zip(found, wanted, strict=True):
                assert got.shape == want.shape
                np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def test_bfloat16_is_near(model: AbstractDynamics) -> None:
    mine, truth = TorchBackend(model, settings("bfloat16"), "here"), NumpyBackend(model, "here")
    x, u = np.random.default_rng(1).normal(size=(50, 4)), np.zeros((50, 1))
    operation = truth.operations["acceleration"]
    (got,) = mine.run(operation, [x.astype("f4"), u.astype("f4")])
    (want,) = truth.run(operation, [x, u])
    assert 0 < np.sqrt(((got - want) ** 2).mean()) < 0.03 * np.sqrt((want**2).mean())


def test_it_is_chosen_by_the_configuration_and_warms_up() -> None:
    backend = make_backend(untrained_fnode(), settings(), "here")
    assert isinstance(backend, TorchBackend)
    warm_up(backend, settings())


def test_what_it_cannot_do_is_one_line() -> None:
    with pytest.raises(ConfigError, match="here: LinearModel cannot be rebuilt"):
        make_backend(LinearModel(np.zeros((2, 6))), settings(), "here")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"here\.device: cuda: this machine has no CUDA"):
            make_backend(untrained_fnode(), settings(device="cuda"), "here")
    else:
        pytest.skip("this machine has CUDA")


def test_padding_goes_to_powers_of_two() -> None:
    assert [padded(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]
