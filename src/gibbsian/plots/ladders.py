"""Charts of chains and ladders: mixing, acceptance and round trips, log Z along a path."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gibbsian.errors import GibbsianError
from gibbsian.plots.charts import _minus, _plot
from gibbsian.plots.pictures import Array, Number, _numbers
from gibbsian.plots.style import BLUE, EDGE, GREEN, HAIRLINE, INK, ORANGE, WIDTH, _styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLOCKS = 40  # stretches of the run that means are taken over
_Z95 = 1.959964
_MARGIN = 0.1


@_styled
def mixing(
    noise: Array, data: Array, steps: Sequence[int] | Array, *, margin: float = _MARGIN,
    quantity: str = "Free energy",
) -> "Figure":  # fmt: skip
    """Draw the mean energy of chains from noise and from data, and the band in which they count as equal.

    Lines are means over the chains and over a fortieth of the run; the shades around them are 95 %
    intervals from the scatter between chains. The grey band is the mean of the data-started chains over
    the second half, ± `margin` standard deviations of the energy of a single state.

    Parameters
    ----------
    noise, data
        Energies in nats, ``(T, C)`` each, C at least 2.
    steps
        The T numbers of steps.
    margin
        In standard deviations.

    Raises
    ------
    GibbsianError
        If the shapes do not fit, or an energy is not finite.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    times = _numbers(steps, "steps").ravel()
    both = [_numbers(x, "energies") for x in (noise, data)]
    if any(x.ndim != 2 or len(x) != len(times) or x.shape[1] < 2 for x in both):
        raise GibbsianError(
            f"Energies have the shape (T, C) with T the {len(times)} numbers of steps and at least 2 "
            f"chains, not {both[0].shape} from noise and {both[1].shape} from data."
        )
    if not all(np.isfinite(x).all() for x in both):
        raise GibbsianError("There are energies that are not finite: the chains have diverged.")
    late = both[1][len(times) // 2 :]
    middle, half = float(late.mean()), margin * float(late.std())
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    band = axes.axhspan(middle - half, middle + half, color=EDGE, alpha=0.45, linewidth=0, zorder=0)
    band.set_label(f"equal within {margin:g} standard deviations")
    names = ("started from noise", "started from data")
    ends = []
    for x, name, colour in zip(both, names, (ORANGE, BLUE), strict=True):
        at, mean, error = _blocks(x, times)
        axes.fill_between(at, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        _plot(axes, at, mean, color=colour, label=name)
        rest = slice(len(mean) // 4, None)
        ends += [mean[rest] - error[rest], mean[rest] + error[rest]]
    # The first stretch, on the way down, would flatten all that matters.
    low = min(middle - 2 * half, *(float(e.min()) for e in ends))
    high = max(middle + 2 * half, *(float(e.max()) for e in ends))
    room = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.set_xlabel("steps")
    axes.set_ylabel(f"{quantity} (nats)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=1)
    return figure


def _blocks(x: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, means and half intervals over stretches of the run."""
    parts = np.array_split(np.arange(len(x)), min(_BLOCKS, len(x)))
    means = np.stack([x[i].mean(axis=0) for i in parts])
    error = _Z95 * means.std(axis=1, ddof=1) / np.sqrt(means.shape[1])
    return np.array([times[i].mean() for i in parts]), means.mean(axis=1), error


@_styled
def ladder(
    acceptance: Array | Sequence[Number],
    round_trips: int,
    chains: int,
    steps: int,
    *,
    labels: Sequence[str] = (),
) -> "Figure":
    """Draw the share of swaps accepted on each rung of a ladder, and say how many round trips there were.

    Parameters
    ----------
    acceptance
        One share a rung, from the reference up.
    round_trips, chains, steps
        Journeys from the bottom to the top and back, of so many chains in so many steps.
    labels
        Of the rungs; their numbers unless given.

    Raises
    ------
    GibbsianError
        If there are no rungs.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    shares = _numbers(acceptance, "shares of accepted swaps").ravel()
    if not len(shares):
        raise GibbsianError("There are no rungs to draw: a ladder has two levels or more.")
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    axes = figure.subplots()
    at = np.arange(1, len(shares) + 1)
    colours = [BLUE if s >= 0.05 else ORANGE for s in shares]
    axes.bar(at, shares, color=colours, width=0.72)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    if labels:
        axes.set_xticks(at, list(labels))
    axes.set_xlabel("rung, from the reference up to the machine")
    axes.set_ylabel("swaps accepted")
    each = round_trips / max(chains, 1)
    axes.set_title(
        f"{round_trips:,} round trips in {steps:,} steps, {each:.1f} a chain", fontsize=9
    )
    return figure


@_styled
def log_z_along(
    positions: Array | Sequence[Number],
    log_z: Array | Sequence[Number],
    errors: Array | Sequence[Number] | None = None,
    *,
    label: str = "\N{GREEK SMALL LETTER BETA}", exact: float | None = None,
) -> "Figure":  # fmt: skip
    """Draw log Z along a path of machines: a ladder of temperatures or a trajectory of checkpoints.

    Parameters
    ----------
    positions
        Where each machine stands, such as β or the number of updates; rising.
    log_z
        Its log Z in nats.
    errors
        Standard errors; those that are not finite are not drawn. Bars are 95 % intervals.
    label
        Name of the positions.
    exact
        The true value at the last position, where it is known.

    Raises
    ------
    GibbsianError
        If the lengths differ, or there are fewer than two machines.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    x, y = (_numbers(v, "numbers").ravel() for v in (positions, log_z))
    e = np.full(len(x), np.nan) if errors is None else _numbers(errors, "errors").ravel()
    if not len(x) == len(y) == len(e) >= 2:
        raise GibbsianError(
            f"Positions, log Z and errors must be of one length, at least 2, not {len(x)}, {len(y)} and "
            f"{len(e)}."
        )
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, color=HAIRLINE, linewidth=1.2, zorder=1)
    known = np.isfinite(e)
    axes.plot(x, y, "o", color=BLUE, markersize=4.5, zorder=3)
    axes.errorbar(
        x[known], y[known], _Z95 * e[known], fmt="none", ecolor=BLUE, elinewidth=1.6, capsize=4
    )
    if exact is not None:
        axes.plot(x[-1], exact, "D", color=GREEN, markersize=8, fillstyle="none", zorder=4)
        axes.annotate("exact", (x[-1], exact), (-10, 0), textcoords="offset points", ha="right",
                      va="center", color=GREEN)  # fmt: skip
    last = f"log Z {y[-1]:.2f}" + (f" ± {_Z95 * e[-1]:.2f}" if known[-1] else "")
    axes.set_title(_minus(last) + " at the end", fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(label)
    axes.set_ylabel("log Z (nats)")
    return figure
