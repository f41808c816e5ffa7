"""The verbs of `hil`; what they do lives in `hil.services`.

Each verb imports the service it needs, so that `hil --help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from hil import __version__
from hil.config import Config, environment, load, parse_overrides
from hil.errors import HilError, InputError

F = TypeVar("F", bound=Callable[..., Any])


def say(text: str) -> None:
    """Tell a person something; stdout belongs to results."""
    click.echo(text, err=True)


def result(as_json: bool, values: Any, text: str) -> None:
    """End with a result: one JSON object, or the text for a person."""
    if as_json:
        click.echo(msgspec.json.encode(values))
    else:
        click.echo(text)


def json_option(verb: F) -> F:
    """Add `--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="End with one JSON object on stdout."
    )(verb)


def config_options(verb: F) -> F:
    """Add what every verb that reads a configuration takes."""
    for option in (
        click.option(
            "--set", "settings", multiple=True, metavar="KEY.PATH=VALUE",
            help="Override a value of the configuration; may be repeated.",
        ),
        click.option("--ideal", is_flag=True, help="Switch a simulated rig's imperfections off."),
        click.option("--sim", is_flag=True, help="Simulate the far end of the wire."),
    ):  # fmt: skip
        verb = option(verb)
    return verb


def runs_option(verb: F) -> F:
    """Add `--runs`."""
    return click.option(
        "--runs", type=click.Path(path_type=Path), default=Path("runs"), envvar="HIL_RUNS",
        show_default=True, help="Where run directories are made.",
    )(verb)  # fmt: skip


def resolved(
    config: Path, sim: bool, ideal: bool, settings: tuple[str, ...], **more: Any
) -> Config:
    """Load a configuration with what the command line adds to it."""
    overrides = parse_overrides(settings) | {k: v for k, v in more.items() if v is not None}
    if ideal:
        overrides["ideal"] = True
    return load(config, sim=sim, overrides=overrides, environ=environment())


CONFIG = click.argument("config", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hil")
def cli() -> None:
    """Hardware-in-the-loop: one process owns a rig, training and control talk to it.

    Start with `hil demo`; it needs no hardware.
    """


@cli.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@config_options
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configurations instead.")
@json_option
def validate(
    config: Path | None, sim: bool, ideal: bool, settings: tuple[str, ...], schema: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Check a configuration, part by part, without touching a device.

    Example: hil validate configs/iris.toml --sim
    """
    from hil.services import checks

    if schema:
        click.echo(msgspec.json.format(msgspec.json.encode(checks.schema()), indent=2))
        return
    if config is None:
        raise click.UsageError("CONFIG is missing; example: hil validate configs/iris.toml")
    parts = checks.validate(resolved(config, sim, ideal, settings))
    lines = [f"{where}: {text}" for where, text in parts.items()]
    result(as_json, {"valid": True, "parts": parts}, "\n".join([*lines, f"{config} is valid"]))


@cli.command()
@CONFIG
@config_options
@json_option
def serve(config: Path, sim: bool, ideal: bool, settings: tuple[str, ...], as_json: bool) -> None:
    """Own a rig and answer for it until ctrl-C: the mirror.

    Example: hil serve configs/spring_network.toml --sim --set clock=wall
    """
    from hil.services import foreground

    report = foreground.serve(resolved(config, sim, ideal, settings), say)
    result(as_json, report, f"{report.name}: ended after {report.commands} commands")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@json_option
def status(config: Path | None, as_json: bool) -> None:
    """Show how the rigs of this machine are, or the rig of CONFIG.

    Example: hil status
    """
    from hil.services import foreground

    reports = foreground.reports(load(config, environ=environment()) if config else None)
    text = "\n\n".join(map(foreground.describe, reports)) or "no mirror is running"
    result(as_json, {"rigs": reports}, text)


@cli.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--reason", default="hil stop", show_default=True, help="Recorded with the fault.")
@json_option
def stop(config: Path | None, reason: str, as_json: bool) -> None:
    """Stop every rig of this machine, or the rig of CONFIG, at once; needs no lease.

    Outputs become safe and the fault stays until somebody clears it. Example: hil stop
    """
    from hil.services import foreground

    stopped = foreground.stop(load(config, environ=environment()) if config else None, reason)
    text = "\n".join(f"{name}: {state}" for name, state in stopped.items())
    result(as_json, {"stopped": stopped}, text)


@cli.command()
@CONFIG
@json_option
def clear(config: Path, as_json: bool) -> None:
    """Lead the rig of CONFIG out of its fault, once the cause is gone.

    The device is read back; nothing moves. Example: hil clear configs/spring_network.toml
    """
    from hil.services import foreground

    state = foreground.clear(load(config, environ=environment()))
    result(as_json, {"state": state}, f"the rig is {state}")


@cli.command()
@click.option("--probe", is_flag=True, help="Ask who answers; opening a port resets some boards.")
@json_option
def devices(probe: bool, as_json: bool) -> None:
    """List the serial ports of this machine.

    A port that a mirror owns stays with it. Example: hil devices --probe
    """
    from hil.services import checks

    found = checks.devices(probe)
    result(as_json, {"devices": found}, checks.device_table(found))


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look whether this machine has what hil needs, and say what to do where it has not.

    Example: hil doctor
    """
    from hil.services import checks

    findings = checks.doctor()
    text = "\n".join(
        f"{'ok  ' if f.ok else 'MISS'}  {f.what}: {f.found}" + (f"; {f.todo}" if f.todo else "")
        for f in findings
    )
    result(as_json, {"ok": all(f.ok for f in findings), "findings": findings}, text)
    if not all(f.ok for f in findings):
        raise click.exceptions.Exit(1)


@cli.command()
@CONFIG
@config_options
@click.option("--lens", is_flag=True, help="Calibrate the lens with a checkerboard instead.")
@click.option("--views", type=click.IntRange(6, 100), default=12, show_default=True, help="Of it.")
@runs_option
@json_option
def camera(
    config: Path, sim: bool, ideal: bool, settings: tuple[str, ...], lens: bool, views: int,
    runs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Look through the camera of a bench: which markers it sees, and how much noise there is.

    With --lens it tells how to hold a checkerboard, and writes the file the rig's table names.
    Example: hil camera configs/manual.toml --sim
    """
    from hil.services import camera as service

    found = resolved(config, sim, ideal, settings)
    calibrated = service.calibrate(found, views, runs, say) if lens else None
    outcome = calibrated or service.look(found, runs, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@config_options
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the split, the order, the noise.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run.")
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Start at the stiffness another run ended with: another task, on the same network.",
)
@runs_option
@json_option
def train(
    config: Path | None, sim: bool, ideal: bool, settings: tuple[str, ...], seed: int | None,
    resume: Path | None, start: Path | None, runs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Train a rig in place; starts a mirror itself when none serves the rig.

    A configuration without [rig] trains a model alone; with an emulator, a trained model runs
    on it. Example: hil train configs/iris.toml --sim --seed 0
    """
    from hil.recording.run import Run
    from hil.services.trainer import trainer

    if resume is not None:
        if config is not None or settings or seed is not None or ideal or start is not None:
            raise click.UsageError(
                "--resume takes its configuration from the run; leave CONFIG, --set, --seed, "
                "--start and --ideal away"
            )
        service = trainer(Run.open(resume).read_config())
        outcome = service.resume(resume, say)
    elif config is None:
        raise click.UsageError("CONFIG is missing; example: hil train configs/iris.toml --sim")
    else:
        found = resolved(config, sim, ideal, settings, seed=seed)
        service = trainer(found)
        if start is not None:
            if not hasattr(service, "started_from"):
                raise click.UsageError("--start is for a spring network that learns in place")
            found = service.started_from(found, start)
        outcome = service.train(found, runs, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@CONFIG
@config_options
@click.option("--seed", type=click.IntRange(min=0), help="Seed of a simulated rig's noise.")
@runs_option
@json_option
def control(
    config: Path, sim: bool, ideal: bool, settings: tuple[str, ...], seed: int | None,
    runs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Run a controller on a rig; starts a mirror itself when none serves the rig.

    Example: hil control configs/balance.toml --sim
    """
    from hil.services import control as service

    outcome = service.control(resolved(config, sim, ideal, settings, seed=seed), runs, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@CONFIG
@config_options
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the load cases.")
@click.option(
    "--from",
    "recordings",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Fit the simulated rig to a run instead; may be repeated.",
)
@click.option("--held-out", type=click.Path(path_type=Path), metavar="RUN", help="To be predicted.")
@runs_option
@json_option
def calibrate(
    config: Path, sim: bool, ideal: bool, settings: tuple[str, ...], seed: int | None,
    recordings: tuple[Path, ...], held_out: Path | None, runs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Measure what a rig's springs and sensors really are, and keep it for this device.

    With --from nothing is touched: the rig is found from what runs recorded of it, and a
    configuration is written that simulates this rig.

    Example: hil calibrate configs/spring_network.toml --sim
    """
    from hil.services import calibrate as service

    found = resolved(config, sim, ideal, settings, seed=seed)
    if recordings:
        from hil.services import fit_rig

        fitted = fit_rig.fit_rig(found, config, recordings, held_out, runs, say)
        result(as_json, fitted, fit_rig.summary(fitted))
        return
    if held_out is not None:
        raise click.UsageError("--held-out goes with --from")
    outcome = service.calibrate(found, runs, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@CONFIG
@config_options
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the excitation and the noise.")
@runs_option
@json_option
def collect(
    config: Path, sim: bool, ideal: bool, settings: tuple[str, ...], seed: int | None,
    runs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Excite a rig around a stabilising law and record it, for `hil fit`.

    Example: hil collect configs/cart_pole_collect.toml --sim
    """
    from hil.services import control as service

    found = resolved(config, sim, ideal, settings, seed=seed)
    outcome = service.control(found, runs, say, excite=True)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@CONFIG
@click.argument(
    "recordings", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a value of the configuration; may be repeated.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the first weights and batches.")
@runs_option
@json_option
def fit(
    config: Path, recordings: tuple[Path, ...], settings: tuple[str, ...], seed: int | None,
    runs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Fit a model to the recordings of runs.

    Example: hil fit configs/fnode.toml runs/2026-11-21-140000-cart-pole-collect
    """
    from hil.services import fit as service

    found = resolved(config, False, False, settings, seed=seed)
    outcome = service.fit(found, recordings, runs, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a value of the configuration; may be repeated.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Points at once; 1 per processor.")
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Do the points on a Ray cluster: its HOST:PORT, or `local` to start one here.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Do what is missing of a sweep; with CONFIG, after it has changed.",
)
@runs_option
@json_option
def sweep(
    config: Path | None, settings: tuple[str, ...], workers: int | None, ray: str | None,
    resume: Path | None, runs: Path, as_json: bool,
) -> None:  # fmt: skip
    """Do one thing at many points: seeds, settings, simulated rigs, a grid of parameters.

    A point that is done stays done: after a kill, --resume does the others. Example: hil sweep
    configs/sweep_iris.toml --set sweep.axes.seed=0..9
    """
    from hil.recording.run import Run
    from hil.services import sweep as service
    from hil.sweep.base import AbstractExecutor
    from hil.sweep.local import LocalExecutor

    def executor() -> AbstractExecutor:
        if ray is None:
            return LocalExecutor(workers)
        from hil.sweep.ray_cluster import RayExecutor

        return RayExecutor(ray, workers)

    if config is not None:
        found = resolved(config, False, False, settings)
    elif resume is None or settings:
        raise click.UsageError("CONFIG is missing; example: hil sweep configs/vehicle.toml")
    else:
        found = Run.open(resume).read_config()
    outcome = service.sweep(found, resume, runs, executor, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@CONFIG
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a value of the configuration; may be repeated.",
)
@click.option("--status", is_flag=True, help="Show how the process that serves CONFIG is instead.")
@click.option(
    "--swap",
    metavar="MODEL=PATH",
    help="Have the process that serves CONFIG try a stored model in a shadow run, and take it.",
)
@json_option
def infer(
    config: Path, settings: tuple[str, ...], status: bool, swap: str | None, as_json: bool
) -> None:  # fmt: skip
    """Serve models of the store, in batches and within deadlines, until ctrl-C.

    Example: hil infer configs/inference.toml
    """
    from hil.services import infer as service

    found = resolved(config, False, False, settings)
    if swap is not None:
        outcome = service.swap(found, swap, say)
        result(as_json, outcome, service.swap_summary(outcome))
        if outcome.state != "accepted":
            raise click.exceptions.Exit(1)
        return
    report = service.status(found) if status else service.serve(found, say)
    result(as_json, report, service.summary(report))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def plot(run: Path, as_json: bool) -> None:
    """Draw the pictures of a training run again, from its recording.

    Example: hil plot runs/2026-11-21-140000-iris
    """
    from hil.recording.run import Run
    from hil.services.trainer import trainer

    service = trainer(Run.open(run).read_config())
    if not hasattr(service, "redraw"):
        raise InputError(f"{run}: such a run's pictures are drawn while it runs only")
    paths = [str(path) for path in service.redraw(run)]
    result(as_json, {"run": str(run), "plots": paths}, "\n".join(paths))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def export(run: Path, as_json: bool) -> None:
    """Write what a run recorded as CSV, one file per topic, into its directory.

    Example: hil export runs/2026-11-21-140000-iris
    """
    from hil.services import export as service

    outcome = service.export(run, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@click.argument("what", type=click.Choice(["iris", "emulator", "half-adder"]), default="iris")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@runs_option
@json_option
def demo(what: str, seed: int, runs: Path, as_json: bool) -> None:
    """Show what hil does, through the whole stack, in under a minute; needs no hardware.

    iris, the default: a simulated spring network learns Iris in place. Firmware (C, compiled for
    this machine) behind a pseudo-terminal, the mirror, ZeroMQ, the trainer.

    emulator: gyroscopes learn to read pen strokes, and a simulated instrument reads them. SCPI,
    PyVISA, the mirror, ZeroMQ, a film of a stroke on its way.

    half-adder: springs under large loads learn to add two bits, which no linear network can, and
    then do it. Example: hil demo half-adder
    """
    from hil.services import train as service

    if what == "emulator":
        from hil.services import emulator_demo

        say("hil demo emulator: gyroscopes read pen strokes on a simulated instrument\n")
        config = resolved(service.shipped("emulator_demo.toml"), True, False, (), seed=seed)
        shown = emulator_demo.demo(config, runs, say)
        result(as_json, shown, emulator_demo.summary(shown))
        return
    if what == "half-adder":
        from hil.services import half_adder_demo

        say("hil demo half-adder: a simulated spring network learns to add two bits, and adds\n")
        config = resolved(service.shipped("half_adder.toml"), True, True, (), seed=seed)
        added = half_adder_demo.demo(config, runs, say)
        result(as_json, added, half_adder_demo.summary(added))
        return
    say("hil demo: a simulated spring network learns Iris in place\n")
    config = resolved(service.shipped("iris.toml"), True, False, (), seed=seed)
    outcome = service.train(config, runs, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@click.argument("name")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a value of the protocol; may be repeated.",
)
@click.option("--config", type=click.Path(path_type=Path), help="A protocol of your own.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run cut short."
)
@runs_option
@json_option
def bench(
    name: str, settings: tuple[str, ...], config: Path | None, resume: Path | None, runs: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Compare by a fixed protocol, over seeds; goes on where a killed run stopped.

    fnode: learned dynamics of eight systems. symo: discrete Lagrangians from poses.
    differentiation: accelerations from noisy poses. friction: one network for a slider-crank
    over a range of its dry friction. spring: what a spring network learns in place, beside the
    paper. damage: every bond of a trained spring network cut once. gradients: ways to measure a
    gradient in place. gates: what no linear network can do, learned in place.

    Example: hil bench fnode --set preset=quick
    """
    from hil.recording.run import Run
    from hil.services import benches
    from hil.services.train import shipped

    service = benches.find(name)
    if resume is None:
        found = resolved(config or shipped(f"bench_{name}.toml"), False, False, settings)
    elif settings or config:
        raise click.UsageError("--resume takes its protocol from the run; leave the rest away")
    else:
        found = Run.open(resume).read_config()
    outcome = service.bench(found, runs, resume, say)
    result(as_json, outcome, service.summary(outcome))


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--client", default="client", show_default=True, help="Name of the new key.")
@click.option(
    "--role", type=click.Choice(["observe", "operate", "train", "admin"]), default="operate",
    show_default=True,
)  # fmt: skip
@json_option
def keys(directory: Path, client: str, role: str, as_json: bool) -> None:
    """Make CURVE keys: the mirror's once, and one for a client with a role.

    Example: hil keys keys --client laptop --role train
    """
    from hil.services import keyring

    made = [str(path) for path in keyring.make(directory, client, role)]
    result(as_json, {"made": made}, "\n".join(made))


def main() -> None:
    """Run a verb; every error is one line on stderr and an exit code."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("hil: interrupted")
        sys.exit(130)
    except click.ClickException as error:
        say(f"hil: {' '.join(error.format_message().split())}")
        sys.exit(2)
    except HilError as error:
        say(f"hil: {' '.join(str(error).split())}")
        sys.exit(error.exit_code)
