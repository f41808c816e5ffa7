"""ngspice as a batch check: a netlist and its stimuli in, trajectories out of the raw file."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from hil.config import environment
from hil.errors import ConfigError, RunError
from hil.types import Array
from sim.circuits.netlist import UNIT, Netlist

PROGRAM = "ngspice"
OPTIONS = ".options reltol=1e-5 method=trap"
RISE = 1e-4  # of a step, that a nudge takes to change
PER_STEP = 20  # steps of the solver at least in one step of the nudges
PATIENCE_S = 600.0


def need_ngspice() -> str:
    """Return the path of ngspice; raises ConfigError where it is not installed."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise ConfigError(f"{PROGRAM} is not installed; on Debian: apt-get install ngspice")
    return found


def run_batch(circuit: Netlist, nudges: Array, step: float, per_step: int = PER_STEP) -> Array:
    """Return the states (steps + 1, n, 4), machine units, of one case.

    nudges: (steps, k, 2), machine units, each held for `step` s of the machine. per_step:
    steps of the solver at least in one such step.
    Raises ConfigError without ngspice, RunError with its own words where it fails.
    """
    program = need_ngspice()
    steps = len(nudges)
    stop = steps * step
    volts = np.concatenate((UNIT * nudges.reshape(steps, -1), np.arange(steps)[:, None] % 2.0), 1)
    # The last one does nothing but make the solver land on the end of every step.
    sources = (*zip(circuit.sources, circuit.nodes, strict=True), ("vclock", ("clock", "0")))
    lines = ["* gyro network", OPTIONS, *circuit.lines]
    for (source, (plus, minus)), values in zip(sources, volts.T, strict=True):
        corners = [f"0 {values[0]:.12g}"]
        for number, (before, after) in enumerate(pairwise(values.tolist()), start=1):
            if before != after:
                time = number * step
                corners.append(f"{time:.12g} {before:.12g} {time + RISE * step:.12g} {after:.12g}")
        lines.append(f"{source} {plus} {minus} pwl({' '.join(corners)})")
    lines += (
        f".save {' '.join(circuit.saved)}",
        f".tran {step:.12g} {stop:.12g} 0 {step / per_step:.12g} uic",
        ".end",
    )
    with tempfile.TemporaryDirectory() as folder:
        deck, raw = Path(folder) / "deck.cir", Path(folder) / "deck.raw"
        deck.write_text("\n".join(lines) + "\n", encoding="ascii")
        try:
            done = subprocess.run(
                [program, "-b", "-r", str(raw), str(deck)],
                capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=folder,
                env={**environment(), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RunError(f"ngspice: not done in {PATIENCE_S:g} s") from None
        if done.returncode or not raw.exists():
            said = [line for line in (done.stdout + done.stderr).splitlines() if "rror" in line]
            raise RunError(f"ngspice: failed ({done.returncode}): {' '.join(said) or 'no reason'}")
        names, data = read_raw(raw)
    when = data[:, 0]
    samples = np.arange(steps + 1) * step
    near = np.clip(np.searchsorted(when, samples - 1e-6 * step), 0, len(when) - 1)
    if np.abs(when[near] - samples)[1:].max() > 1e-5 * step:
        raise RunError(f"ngspice: ended at {when[-1]:g} s of {stop:g} s")
    states = circuit.states(data[near][:, [names.index(name) for name in circuit.saved]])
    states[0] = circuit.initial  # with `uic` the first point is a step of the solver later
    return states


def read_raw(path: Path) -> tuple[list[str], Array]:
    """Return names and values (points, names) of a binary raw file of real numbers.

    Raises RunError for another kind of file.
    """
    content = path.read_bytes()
    head, found, body = content.partition(b"Binary:\n")
    fields: dict[str, str] = {}
    names: list[str] = []
    for line in head.decode("ascii", "replace").splitlines():
        if line.startswith("\t"):
            names.append(line.split()[1].lower())
        else:
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
    points = int(fields.get("no. points", "0"))
    whole = points > 0 and len(body) >= 8 * points * len(names)
    if not found or "real" not in fields.get("flags", "") or not whole:
        raise RunError(f"{path}: not a binary raw file of real numbers")
    values = np.frombuffer(body, dtype="<f8", count=points * len(names))
    return names, values.reshape(points, len(names))
