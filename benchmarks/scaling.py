"""How the cost of a sweep grows: slopes of log time over log size, by least squares."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.contests import BARE, OURS
from benchmarks.sizes import Sizes
from benchmarks.timing import Work, rows, take_turns

AXES = ("chains", "visible", "hidden")


def scaling(sizes: Sizes) -> dict[str, Any]:
    """Time sweeps over a grid of sizes, one axis at a time, beside their bare products."""
    found = {axis: _times(sizes, axis) for axis in AXES}
    return {
        "title": "Growth of a sweep's cost: slope of log time over log size (1 = in proportion)",
        "figures": {
            axis: {name: slope(grid, [times[name, n] for n in grid]) for name in (OURS, BARE)}
            for axis, (grid, times) in found.items()
        },
        "points": {
            axis: [{"size": n} | {name: times[name, n] for name in (OURS, BARE)} for n in grid]
            for axis, (grid, times) in found.items()
        },
        "notes": [
            f"sizes {', '.join(f'{f:g}' for f in sizes.grid)} times {sizes.chains:,} chains, "
            f"{sizes.visible} visible and {sizes.hidden} hidden units, one of them at a time"
        ],
    }  # fmt: skip


def slope(sizes: list[int], times: list[float]) -> float:
    """Fit log t = a log n + b by least squares; return a."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def _times(sizes: Sizes, axis: str) -> tuple[list[int], dict[tuple[str, int], float]]:
    """Return the grid of an axis, and what a sweep costs at each size, in bare ones of Sizes.

    All sizes take turns, so that no slope comes from a machine that was busier at one of them.
    """
    grid = sorted({max(1, round(getattr(sizes, axis) * factor)) for factor in sizes.grid})
    count = max(1, sizes.sweeps // 3)
    makers: dict[str, Callable[[], Work]] = {}
    for n in grid:
        here = dataclasses.replace(sizes, **{axis: n})
        made = ours.machine(here)
        makers[f"{OURS} {n}"] = lambda m=made, s=here: ours.sweep(m, s.chains, count)
        makers[f"{BARE} {n}"] = lambda s=here: ours.bare_sweep(s, count)
    turns = take_turns(ours.bare_sweep(sizes, count), makers, max(2, sizes.rounds // 3))
    measured = rows(turns, "base", count)
    return grid, {
        (name, n): measured[f"{name} {n}"]["ratio"] for name in (OURS, BARE) for n in grid
    }
