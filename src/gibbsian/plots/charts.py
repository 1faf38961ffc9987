"""Charts: learning curves, energies of chains, likelihood bounds, and the study of sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gibbsian.errors import GibbsianError
from gibbsian.plots.pictures import Array, Number, _numbers
from gibbsian.plots.style import BLUE, EDGE, GREEN, HAIRLINE, INK, MUTED, ORANGE, WIDTH, _styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = tuple[Number, Number, Number]

_METRICS = (
    ("reconstruction_error", "Reconstruction error", "per visible unit"),
    ("cross_entropy", "Cross-entropy", "nats per row"),
    ("pseudo_likelihood", "Pseudo-likelihood", "nats per row"),
    ("free_energy_gap", "Free-energy gap", "nats"),
    ("weight_norm", "Weight norm", "Frobenius"),
)

_SPLITS = {"train": ("train", BLUE), "validation": ("validation", ORANGE)}


def _flat(record: Mapping[str, Any]) -> dict[str, float]:
    """Flatten a record to dotted names of numbers; null, which a run writes for NaN, is NaN."""
    flat: dict[str, float] = {}
    for key, value in record.items():
        name = key.replace("/", ".")
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": number for inner, number in _flat(value).items()}
        elif value is None or isinstance(value, int | float):
            flat[name] = math.nan if value is None else float(value)
    return flat


def _curve(records: Sequence[Mapping[str, float]], metric: str, split: str | None) -> np.ndarray:
    """Collect ``(m, 2)``: step and value. A value that is not finite leaves a gap in the line."""
    names = [f"{split}.{metric}", f"{metric}.{split}", f"{split}_{metric}", f"{metric}_{split}"]
    points = [
        (record.get("step", record.get("update", number)), record[name])
        for number, record in enumerate(records)
        for name in ([metric] if split is None else names)
        if name in record
    ]
    curve = np.array(points, dtype=np.float64).reshape(-1, 2)
    curve[~np.isfinite(curve[:, 1]), 1] = np.nan
    return curve


def _plot(axes: "Axes", x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    few = len(x) <= 12
    axes.plot(x, y, marker="o" if few else None, markersize=3.5, clip_on=not few, **style)


@_styled
def learning_curves(records: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw what was measured during training against the number of updates, one panel a metric.

    Parameters
    ----------
    records
        The lines of ``metrics.jsonl``; ``step`` counts the updates. The metrics
        ``reconstruction_error``, ``cross_entropy``, ``pseudo_likelihood``, ``free_energy_gap`` and
        ``weight_norm`` may stand alone, or per split ``train`` and ``validation`` as
        ``"train.<metric>"`` or ``"<metric>.train"`` (with ``.``, ``/``, ``_`` or nested). Any may
        be missing anywhere; NaN and None leave a gap.

    Raises
    ------
    GibbsianError
        If the records hold none of these metrics.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, MaxNLocator

    flat = [_flat(record) for record in records]
    panels = []
    for metric, title, unit in _METRICS:
        alone, *by_split = (_curve(flat, metric, split) for split in (None, *_SPLITS))
        curves = [(INK, alone), *zip((c for _, c in _SPLITS.values()), by_split, strict=True)]
        curves = [(colour, curve) for colour, curve in curves if np.isfinite(curve[:, 1:]).any()]
        if curves:
            panels.append((metric, title, unit, curves))
    if not panels:
        raise GibbsianError(
            "The training records hold no metric to draw: train for at least one evaluation."
        )
    beside = min(2, len(panels))
    down = -(-len(panels) // beside)
    figure = Figure(figsize=(WIDTH, 1.75 * down + 0.35), layout="constrained")
    grid = figure.subplots(down, beside, squeeze=False)
    for axes, (metric, title, unit, curves) in zip(grid.flat, panels, strict=False):
        for colour, curve in curves:
            _plot(axes, curve[:, 0], curve[:, 1], color=colour, linewidth=1.5)
        if metric == "free_energy_gap":
            axes.axhline(0, color=EDGE, linewidth=0.9, zorder=1)
        axes.set_title(title, fontsize=9, pad=18)
        axes.text(0, 1.03, unit, transform=axes.transAxes, va="bottom", fontsize=8, color=MUTED)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(4))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(0, len(panels) - beside) : len(panels)]:  # the lowest of a column
        axes.set_xlabel("updates")
    used = {colour for *_, curves in panels for colour, _ in curves}
    lines = [(Line2D([], [], color=c), name) for name, c in _SPLITS.values() if c in used]
    if lines:
        figure.legend(*zip(*lines, strict=True), loc="outside upper left", ncols=2)
    return figure


@_styled
def energy_chains(
    noise: Array, data: Array, steps: Sequence[int] | Array, *, quantity: str = "Energy"
) -> "Figure":
    """Draw the energies of chains started from noise and from data against the Gibbs steps.

    Lines are medians over the chains, bands hold 90 % of them; where the two bands lie on each
    other, the machine has forgotten how its chains were started. If the first steps dwarf the
    rest, a second panel shows the steps after a tenth of them by themselves.

    Parameters
    ----------
    noise, data
        Energies in nats, ``(T, C)`` each; the numbers of chains C may differ.
    steps
        The T numbers of Gibbs steps.

    Raises
    ------
    GibbsianError
        If the lengths differ or there is nothing to draw.
    """
    from matplotlib.figure import Figure

    times = _numbers(steps, "steps").ravel()
    chains = [_numbers(noise, "energies"), _numbers(data, "energies")]
    if any(c.ndim != 2 or len(c) != len(times) for c in chains):
        raise GibbsianError(
            f"Energies have the shape (T, C) with T the {len(times)} numbers of steps, not"
            f" {chains[0].shape} from noise and {chains[1].shape} from data."
        )
    bands = [_band(energies) for energies in chains]
    if not np.isfinite(bands).any():
        raise GibbsianError("There is no finite energy to draw: the chains have diverged.")
    late = times >= times[-1] / 10
    whole, end = (np.stack(bands)[..., part] for part in (slice(None), late))
    zoom = late.sum() >= 2 and _spread(whole) > 4 * _spread(end) > 0
    figure = Figure(figsize=(WIDTH, 4.6 if zoom else 2.9), layout="constrained")
    grid = figure.subplots(2 if zoom else 1, 1, squeeze=False)[:, 0]
    names = ("started from noise", "started from data")
    for axes, part in zip(grid, (np.full(len(times), True), late), strict=False):
        for (low, middle, high), name, colour in zip(bands, names, (ORANGE, BLUE), strict=True):
            x = times[part]
            axes.fill_between(x, low[part], high[part], color=colour, alpha=0.18, linewidth=0)
            _plot(axes, x, middle[part], color=colour, label=name)
        axes.set_ylabel(f"{quantity} (nats)")
        if axes is grid[0]:
            _step_axis(axes, times)
    if zoom:
        grid[1].set_title("The same, last steps only", fontsize=9)
        grid[1].xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    grid[-1].set_xlabel("Gibbs steps")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _band(energies: np.ndarray) -> np.ndarray:
    """Return the quantiles 0.05, 0.5 and 0.95 of the finite energies at each time, ``(3, T)``."""
    finite = (row[np.isfinite(row)] for row in energies)
    rows = [np.quantile(row, (0.05, 0.5, 0.95)) if len(row) else [np.nan] * 3 for row in finite]
    return np.array(rows).T


def _spread(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if len(finite) else 0.0


def _step_axis(axes: "Axes", times: np.ndarray) -> None:
    """Use a logarithmic axis that has a place for step 0."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    last = max(1.0, float(times.max()))
    first = min(1.0, float(times.min())) if times.min() < 1 else float(times.min())
    ticks = [0, *(10**k for k in range(math.floor(math.log10(last)) + 1))]
    ticks = [tick for tick in ticks if tick >= first]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(first, last * 1.05)


@_styled
def likelihood_bounds(
    ais: Interval | None,
    reverse: Interval | None,
    *,
    reverse_from_noise: Interval | None = None,
    ladder: Interval | None = None,
    exact: Number | None = None,
    rows: str = "test rows",
) -> "Figure":
    """Draw the log-likelihood by AIS and by reverse AIS, each with its confidence interval.

    AIS errs upwards on average and reverse AIS downwards (Grosse, Ghahramani & Adams 2015), so the
    truth is expected between them; their distance is shaded and written out.

    Parameters
    ----------
    ais, reverse, reverse_from_noise
        ``(value, low, high)`` in nats per row; ``reverse`` from data-started chains. None, or a
        value that is not finite, is shown as "not measured".
    ladder
        The same by tempering and a bridge on each rung; left out unless given.
    exact
        The exact value in nats per row, if it could be enumerated.
    rows
        Whose likelihood it is.

    Raises
    ------
    GibbsianError
        If no estimate is given.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    entries = [
        ("AIS", "errs upwards", ais, BLUE),
        ("Reverse AIS", "errs downwards", reverse, ORANGE),
    ]
    if reverse_from_noise is not None:
        entries[1] = ("Reverse AIS", "chains from data", reverse, ORANGE)
        entries.append(("Reverse AIS", "chains from noise", reverse_from_noise, GREEN))
    bounds = len(entries)
    if ladder is not None:
        entries.append(("Ladder", "tempering", ladder, INK))
    known = [e[2] if e[2] is not None and math.isfinite(e[2][0]) else None for e in entries]
    values = [interval[0] for interval in known if interval is not None]
    if not values:
        raise GibbsianError("There is no likelihood to draw: pass at least one finite estimate.")
    figure = Figure(figsize=(WIDTH, 0.55 * len(entries) + 1.0), layout="constrained")
    axes = figure.subplots()
    title, notes = [], []
    below = [interval[0] for interval in known[1:bounds] if interval is not None]
    if known[0] is not None and below:
        ends = [known[0][0], *below]
        axes.axvspan(min(ends), max(ends), color=HAIRLINE, alpha=0.8, linewidth=0, zorder=0)
        title.append(f"Gap {known[0][0] - min(below):.2f} nats")
    if exact is not None:
        axes.axvline(exact, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
        title.append(f"exact value {exact:.2f} (dashed)")
    for place, ((*_, colour), interval) in enumerate(zip(entries, known, strict=True)):
        notes.append("not measured")
        if interval is not None:
            value, low, high = interval
            axes.plot([low, high], [place, place], color=colour, linewidth=2.4)
            axes.plot(value, place, "o", color=colour, markersize=7)
            notes[-1] = _minus(f"{value:.2f}\n{low:.2f} to {high:.2f}")
    if title:
        text = _minus(", ".join(title))
        figure.suptitle(text, x=0.03, ha="left", fontsize=10, fontweight="bold")
    _sides(axes, [f"{name}\n{kind}" for name, kind, *_ in entries], notes)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(f"Log-likelihood of the {rows} (nats per row)")
    return figure


def _sides(axes: "Axes", labels: Sequence[str], notes: Sequence[str]) -> None:
    """Name the lines of an interval plot on the left and write their values on the right."""
    places = range(len(labels))
    right = axes.secondary_yaxis("right")
    for side, texts, edge in ((axes, labels, "left"), (right, notes, "right")):
        side.set_yticks(places, texts)
        side.tick_params(axis="y", length=0, pad=8, labelcolor=INK)
        side.spines[edge].set_visible(False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


@_styled
def study(results: Mapping[int, tuple[Sequence[Number], Sequence[Number]]]) -> "Figure":
    """Draw pseudo-likelihood against epochs, and its last value against the hidden units.

    Parameters
    ----------
    results
        For each number of hidden units the epochs and the pseudo-likelihoods (nats per row).

    Raises
    ------
    GibbsianError
        If there are no results, or epochs and values differ in length.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = {
        hidden: (_numbers(epochs, "epochs").ravel(), _numbers(values, "values").ravel())
        for hidden, (epochs, values) in sorted(results.items())
    }
    if not curves or min(curves) < 1:
        raise GibbsianError("A study needs results of machines with one hidden unit or more.")
    for hidden, (epochs, values) in curves.items():
        if len(epochs) != len(values):
            raise GibbsianError(
                f"The study of {hidden} hidden units has {len(epochs)} epochs but {len(values)}"
                " values: pass one value an epoch."
            )
    colours = colormaps["viridis"](np.linspace(0, 0.82, len(curves)))
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(1.25, 1))
    for colour, (hidden, (epochs, values)) in zip(colours, curves.items(), strict=True):
        _plot(upper, epochs, values, color=colour, label=f"{hidden:,}")
        lower.plot(hidden, values[-1], "o", color=colour, markersize=7, zorder=3)
    lower.plot(list(curves), [v[-1] for _, v in curves.values()], color=EDGE, linewidth=1.2)
    upper.set_title("Pseudo-likelihood during training")
    upper.set_xlabel("epochs")
    upper.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    upper.legend(title="hidden units", loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    lower.set_title("After the last epoch")
    lower.set_xlabel("hidden units")
    lower.set_xscale("log")
    ticks = _apart(list(curves))
    lower.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    lower.set_xticks([], minor=True)
    for axes in (upper, lower):
        axes.set_ylabel("nats per row")
    return figure


def _apart(values: list[int]) -> list[int]:
    """Leave out those whose labels would run into their neighbour's on a logarithmic axis."""
    least = 0.08 * math.log(max(values) / min(values))
    kept = values[:1]
    for value in values[1:]:
        if math.log(value / kept[-1]) > least:
            kept.append(value)
    return kept
