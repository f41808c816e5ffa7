"""The program `hil`, also as `python -m hil`."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line with one BLAS thread, unless OPENBLAS_NUM_THREADS says more.

    The threads of OpenBLAS wait for each other in a busy loop. Where other processes share
    the cores, as a mirror and its simulated rig do, many small solves take a hundred times
    their time. The number counts when NumPy is loaded, so it is set before anything else.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from hil.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
