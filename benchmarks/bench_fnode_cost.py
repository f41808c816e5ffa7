"""An FNODE trained in function space against training with batches of one, as published.

    python benchmarks/bench_fnode_cost.py [--json] [--epochs N]

The damped mass of `hil bench fnode`, 300 poses, 2 × 256 tanh. One side is `hil.training.flow`
with its default spread of first weights. The other is what Wang, Wang & Negrut (arXiv 2509.00183)
do, on the same labels: Xavier's weights, Adam on one sample at a time, 1e-3 falling by 0.98 an
epoch, scaled (which theirs is not); slopes by hand in NumPy, cheaper than autograd's. Both are
run to the end, one thread, CPU seconds, and let loose from the same state.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hil.config import load
from hil.models.fnode import FnodeModel, features, layout
from hil.services.bench_fnode import BenchSettings
from hil.training.adam import Adam, AdamState
from hil.training.compare import Case, case
from hil.training.flow import Variant, learn
from hil.training.network import Blocks, Network
from hil.training.rollout import rollout, rollout_error

THREADS = "OMP_NUM_THREADS"
SYSTEM = "mass-spring-damper"


def one_at_a_time(entry: Case, epochs: int, seed: int) -> tuple[FnodeModel, int, float]:
    """Return a network, the updates it took and their CPU seconds."""
    begin, random, net = time.process_time(), np.random.default_rng(seed), entry.network
    q, v, u, a = entry.samples
    z = features(net, q, v, u)
    xavier = np.sqrt(2 / (layout(net).width + net.hidden[0]))
    network = Network.start(net, Blocks(z[None], a[None], np.eye(1)), xavier, random)
    limit = np.sqrt(6 / (net.hidden[-1] + net.nq))
    network.last[:] = random.uniform(-limit, limit, network.last.shape)
    points = (z - network.input_mean) / network.input_scale
    goal = (a - network.output_mean) / network.output_scale
    state = AdamState.start(len(network.flat))
    for epoch in range(epochs):
        adam = Adam(1e-3 * 0.98**epoch)
        for row in random.permutation(len(points)):
            some = slice(row, row + 1)
            miss = network.answers(points[some])[0] - goal[some]
            change, state = adam.step(network.back(points[some], 2 * miss / miss.size), state)
            network.flat += change
    spent = time.process_time() - begin
    return FnodeModel(net, network.weights(points)), state.steps, spent


def error(model: FnodeModel, entry: Case) -> float:
    """Return the mean square error over all of the rollout."""
    settings, truth = entry.settings, entry.truth
    states = rollout(model, truth[0], np.zeros((len(truth) - 1, 0)), settings.period)
    return rollout_error(states, truth, settings.train, settings.period).full


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--epochs", type=int, default=500)
    options = parser.parse_args()
    if os.environ.get(THREADS) != "1":  # read when libraries load
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    config = load(Path(__file__).parents[1] / "configs/bench_fnode.toml")
    settings = msgspec.convert(config.bench, BenchSettings)
    entry = case(settings.systems[SYSTEM], settings.hidden)
    model, done = learn(entry.network, Variant(scale=0.03), entry.samples, seed=0)
    slow, updates, seconds = one_at_a_time(entry, options.epochs, seed=0)
    report: dict[str, Any] = {
        name: {"cpu_s": round(spent, 3), "updates": count, "full": error(found, entry)}
        for name, found, count, spent in (
            ("function_space", model, done.updates, done.cpu_seconds),
            ("one_at_a_time", slow, updates, seconds),
        )
    }
    report["ratio"] = round(seconds / done.cpu_seconds, 1)
    if options.json:
        print(json.dumps(report))
        return
    for name in ("function_space", "one_at_a_time"):
        row = report[name]
        cost = f"{row['cpu_s']:8.2f} s CPU, {row['updates']:7d} updates"
        print(f"{name:16s} {cost}, full {row['full']:.1e}")
    print(f"ratio {report['ratio']}")


if __name__ == "__main__":
    main()
