"""A chart of the associative memory: what is recalled against the load."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gibbsian.arguments import number
from gibbsian.errors import GibbsianError
from gibbsian.plots.pictures import Number
from gibbsian.plots.style import BLUE, EDGE, GREEN, INK, MUTED, ORANGE, WIDTH, _styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Z95 = 1.959964
# Loads at which infinitely many spins lose their patterns.
_CRITICAL = ((0.138, "0.138"), (1.0, "1"))


@_styled
def capacity(
    results: Mapping[str, Sequence[tuple[Number, Number, Number]]], *, flip: Any = None
) -> "Figure":
    """Draw the overlap after recall against the load, one line a rule, with 95 % intervals.

    Dashed lines stand at the critical loads of infinitely many spins: 0.138 for Hebb's rule (Amit,
    Gutfreund & Sompolinsky 1985) and 1 for the pseudo-inverse.

    Parameters
    ----------
    results
        Loads, overlaps and their standard errors, by the name that the legend shall show.
    flip
        Chance of each spin of the cues to be wrong. With it a dotted line shows the overlap of the
        cues themselves, 1 − 2·flip: a memory below it does worse than one that leaves them as they are,
        and one on it, as the pseudo-inverse is beyond a load of 1, does nothing.

    Raises
    ------
    GibbsianError
        If there is nothing to draw, or flip is no chance.
    """
    from matplotlib.figure import Figure

    if not results or not all(results.values()):
        raise GibbsianError("There is no capacity to draw: pass at least one load of each rule.")
    if flip is not None and not 0 <= number(flip, "The fraction of flipped spins") <= 0.5:
        raise GibbsianError(f"The fraction of flipped spins lies from 0 to 0.5, not {flip}.")
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
    if flip is not None:
        name = f"the cue itself, {1 - 2 * flip:.3g}"
        axes.axhline(1 - 2 * flip, color=INK, linewidth=1.2, linestyle=(0, (1, 2)), label=name)
    axes.set_ylim(0, 1.04)
    axes.set_xlim(0, None)
    axes.set_xlabel("load \N{GREEK SMALL LETTER ALPHA}, patterns per spin")
    axes.set_ylabel("overlap after recall")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=1)
    return figure
