"""Write docs/cli.md from the program's own help."""

from __future__ import annotations

from pathlib import Path

import click

from hil.cli import cli

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"


def page() -> str:
    """Return the page: what `hil --help` and every verb's `--help` say."""
    parts = ["# The command line\n\nWritten by `make docs` from the program's own help.\n"]
    # As the program itself is called: click keeps the help option of whoever asks first.
    root = click.Context(cli, info_name="hil", terminal_width=100, **cli.context_settings)
    parts.append(f"```\n{cli.get_help(root)}\n```\n")
    for name, verb in sorted(cli.commands.items()):
        context = click.Context(verb, info_name=name, parent=root, terminal_width=100)
        parts.append(f"## hil {name}\n\n```\n{verb.get_help(context)}\n```\n")
    parts.append(
        "Every verb: progress and words on stderr; with `--json` the last line of stdout is one\n"
        "JSON object. Exit 0 done, 1 it ran and failed, 2 bad input (one line), 130 interrupted.\n"
        "Settings: `--set` over the environment (`HIL_TRAINING__EPOCHS=3`) over preset,\n"
        "simulation overlay, file and base. `hil validate --schema` prints the JSON Schema.\n"
    )
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page())
