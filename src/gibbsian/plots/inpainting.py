"""Figures of the inpainting study: errors of hidden rows, their repairs, and free chains."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gibbsian.errors import GibbsianError
from gibbsian.plots.charts import _apart, _plot
from gibbsian.plots.pictures import Array, Number
from gibbsian.plots.style import BLUE, EDGE, GREEN, INK, MUTED, ORANGE, WIDTH, _styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Z95 = 1.959964
_COLOURS = (BLUE, ORANGE, GREEN)

Point = tuple[Number, Number, Number, Number]


@_styled
def hidden_rows(results: Mapping[str, Sequence[Point]]) -> "Figure":
    """Draw the error of hidden pixels against the number of hidden rows, one panel a band.

    Bands around the lines are 95 % intervals; the dashed line is the error of filling in the training
    rows' means.

    Parameters
    ----------
    results
        For each band the numbers of rows, errors, standard errors and baseline errors.

    Raises
    ------
    GibbsianError
        If there is nothing to draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    _some(results)
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    top = max(max(y + _Z95 * e, base) for p in results.values() for _, y, e, base in p)
    for axes, (band, points) in zip(panels, results.items(), strict=True):
        x, y, e, base = np.array(sorted(points), dtype=np.float64).T
        _plot(axes, x, base, color=EDGE, linestyle=(0, (4, 3)), label="mean of training rows")
        axes.fill_between(x, y - _Z95 * e, y + _Z95 * e, color=BLUE, alpha=0.2, linewidth=0)
        _plot(axes, x, y, color=BLUE, label="inpainted")
        axes.set_title(band, fontsize=9)
        axes.set_xlabel("rows hidden")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    panels[0].set_ylim(0, 1.06 * top or 1.0)
    panels[0].set_ylabel("squared error per pixel")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


@_styled
def hidden_units(results: Mapping[str, Sequence[tuple[Number, Number, Number]]]) -> "Figure":
    """Draw the error of hidden pixels against the machine's hidden units, one line a band.

    Parameters
    ----------
    results
        For each band the numbers of hidden units, errors and standard errors (95 % bars).

    Raises
    ------
    GibbsianError
        If there is nothing to draw.
    """
    from matplotlib.figure import Figure

    _some(results)
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    sizes: set[int] = set()
    for (band, points), colour in zip(results.items(), _COLOURS, strict=False):
        x, y, e = np.array(sorted(points), dtype=np.float64).T
        sizes |= {int(v) for v in x}
        axes.errorbar(x, y, _Z95 * e, color=colour, fmt="o-", markersize=4, capsize=3, label=band)
    axes.set_xscale("log")
    ticks = _apart(sorted(sizes)) if len(sizes) > 1 else sorted(sizes)
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("hidden units")
    axes.set_ylabel("squared error per pixel")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


@_styled
def distance(
    steps: Sequence[Number], own: Sequence[Number], errors: Sequence[Number],
    others: Sequence[Number], forgotten: Number | None = None,
) -> "Figure":  # fmt: skip
    """Draw how far free chains are from the image they began at, against their Gibbs steps.

    Parameters
    ----------
    steps
        Numbers of steps; 0 is not drawn, since the axis is logarithmic.
    own, errors
        Mean squared distance to the chain's own image and its standard error (95 % band).
    others
        Distance to the images of other chains.
    forgotten
        The step from which on the two cannot be told apart; None draws no mark.

    Raises
    ------
    GibbsianError
        If there is nothing to draw, or lengths differ.
    """
    from matplotlib.figure import Figure

    if not len(steps) == len(own) == len(errors) == len(others) or not max(steps, default=0) > 0:
        raise GibbsianError(
            "A walk to draw has steps above 0, and one distance of each kind a step."
        )
    s, y, e, z = (np.asarray(v, dtype=np.float64) for v in (steps, own, errors, others))
    s, y, e, z = (v[np.asarray(steps) > 0] for v in (s, y, e, z))
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(s, z, color=MUTED, linestyle=(0, (4, 3)), label="to other images")
    axes.fill_between(s, y - _Z95 * e, y + _Z95 * e, color=BLUE, alpha=0.2, linewidth=0)
    _plot(axes, s, y, color=BLUE, label="to the image it began at")
    if forgotten:
        axes.axvline(forgotten, color=EDGE, linewidth=1.1, zorder=1)
        axes.annotate("forgotten", (forgotten, 0), (4, 4), textcoords="offset points", color=INK,
                      fontsize=8.5)  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    ticks = sorted({int(v) for v in s})
    ticks = _apart(ticks) if len(ticks) > 1 else ticks
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("Gibbs steps with nothing held")
    axes.set_ylabel("squared distance per pixel")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


@_styled
def repaired_bands(
    original: Array, repairs: Mapping[str, tuple[Array, Array]], image_shape: Sequence[int]
) -> "Figure":
    """Show images ``(n, d)``, and for each band what was left of them and what was made of that.

    Raises GibbsianError if the stacks differ in shape or are not of the image shape.
    """
    from gibbsian.plots import _bands, _same_rows

    stacks: list[tuple[str, Array]] = [("original", original)]
    for band, (damaged, repaired) in repairs.items():
        _same_rows(original=original, damaged=damaged, repaired=repaired)
        stacks += [(f"{band} hidden", damaged), ("repaired", repaired)]
    return _bands(stacks, image_shape, "unit")


def _some(results: Mapping[str, Sequence[object]]) -> None:
    if not results or not all(results.values()):
        raise GibbsianError("There are no errors to draw: pass at least one of each band.")
