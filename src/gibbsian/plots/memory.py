"""A chart of the associative memory: what is recalled against the load."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gibbsian.errors import GibbsianError
from gibbsian.plots.pictures import Number
from gibbsian.plots.style import BLUE, EDGE, GREEN, MUTED, ORANGE, WIDTH, _styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Z95 = 1.959964
# Loads at which infinitely many spins lose their patterns.
_CRITICAL = ((0.138, "0.138"), (1.0, "1"))


@_styled
def capacity(results: Mapping[str, Sequence[tuple[Number, Number, Number]]]) -> "Figure":
    """Draw the overlap after recall against the load, one line a rule, with 95 % intervals.

    Dashed lines stand at the critical loads of infinitely many spins: 0.138 for Hebb's rule (Amit,
    Gutfreund & Sompolinsky 1985) and 1 for the pseudo-inverse.

    Parameters
    ----------
    results
        Loads, overlaps and their standard errors, by the name that the legend shall show.

    Raises
    ------
    GibbsianError
        If there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not results or not all(results.values()):
        raise GibbsianError("There is no capacity to draw: pass at least one load of each rule.")
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour in zip(results.items(), (BLUE, ORANGE, GREEN, MUTED), strict=False):
        x, y, e = np.array(sorted(points), dtype=np.float64).T
        axes.fill_between(x, y - _Z95 * e, y + _Z95 * e, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, y, color=colour, marker="o", markersize=3.5, clip_on=False, label=name)
    last = max(load for points in results.values() for load, _, _ in points)
    for load, text in _CRITICAL:
        if load <= last * 1.02:
            axes.axvline(load, color=EDGE, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
            axes.annotate(
                text, (load, 0.02), (4, 0), textcoords="offset points", color=MUTED, fontsize=8.5
            )
    axes.set_ylim(0, 1.04)
    axes.set_xlim(0, None)
    axes.set_xlabel("load \N{GREEK SMALL LETTER ALPHA}, patterns per spin")
    axes.set_ylabel("overlap after recall")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=1)
    return figure
