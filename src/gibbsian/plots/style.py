"""What all figures share: paper, palette, type, and how a figure becomes a file."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from gibbsian.plots.pictures import _write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

# Okabe & Ito's palette: colour-blind readers can tell these apart.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"

INK, MUTED, EDGE, HAIRLINE, PAPER = "#1f2328", "#555e68", "#aeb5bc", "#e6e8eb", "#ffffff"

WIDTH, DPI = 4.7, 200

_STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so it is the same on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": EDGE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": HAIRLINE,
    "xtick.color": EDGE,
    "ytick.color": EDGE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "figure.dpi": DPI,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.07,
}


def _styled(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Run ``draw`` under our style, whatever the user's own matplotlib settings are."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        from matplotlib import style

        with style.context(["default", _STYLE]):
            return draw(*args, **kwargs)

    return wrapper


@_styled
def _draw(figure: "Figure", buffer: io.BytesIO) -> "Figure":
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return figure


def save(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as PNG, without time or version inside: equal figures give equal bytes.

    Raises
    ------
    GibbsianError
        If the path cannot be written.
    """
    buffer = io.BytesIO()
    _draw(figure, buffer)
    return _write(path, buffer.getvalue())
