"""One look for every picture: fonts, colours, sizes, and how a PNG is saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure

from hil.errors import RunError

DPI = 150
PAD = 0.12  # in, around the axes
INK = "#22262b"
GREY = "#8b929b"
FAINT = "#e3e6ea"
# Blue, vermilion and green of Okabe & Ito (2008), told apart by colour-blind eyes too.
BLUE = "#0072b2"
VERMILION = "#d55e00"
GREEN = "#009e73"

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it looks the same everywhere
    "font.size": 11.0,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": PAD,
    "figure.constrained_layout.h_pad": PAD,
    "savefig.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style, whatever the user's matplotlib settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; width, height: inches. Needs no display."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def head(figure: Figure, title: str) -> None:
    """Write a title over several panels, at the left edge."""
    figure.suptitle(title, x=PAD / figure.get_figwidth(), ha="left", weight="bold")


def save(figure: Figure, path: Path) -> Figure:
    """Save as PNG, with no date and no version inside, and return the figure.

    Raises RunError when the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
    except OSError as error:
        raise RunError(f"{path}: the picture cannot be written: {error.strerror}") from None
    return figure


def stiffness_map() -> Colormap:
    """Return soft = light to stiff = dark, even to the eye and visible on white."""
    viridis = matplotlib.colormaps["viridis"]
    return ListedColormap(viridis(np.linspace(0.9, 0.05, 256)), name="stiffness")


def confusion_map() -> Colormap:
    """Return nothing = pale to all = blue."""
    return LinearSegmentedColormap.from_list("share", ["#f1f3f5", "#9cc6e0", BLUE])


def strain_map() -> Colormap:
    """Return below zero = blue, zero = light grey, above = vermilion."""
    return LinearSegmentedColormap.from_list("strain", [BLUE, "#d9dde1", VERMILION])
