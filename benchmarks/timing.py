"""Timing by turns: every ratio is formed between two times taken one after the other."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Work = Callable[[], object]

# OpenMP's and BLAS's threads go on spinning for some milliseconds after their last work, and would
# take a core from whoever comes next.
PAUSE = 0.01

MISSING = "not installed (pip install -c constraints.txt -r benchmarks/requirements.txt)"


class Skipped(Exception):
    """A contestant does not take part; the message says why."""


@dataclass
class Turns:
    """What was timed: for each name its seconds, and those of the base in the same turn."""

    pairs: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def seconds(work: Work) -> float:
    """Time one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def reason(error: Exception) -> str:
    """Say in a few words why a contestant is not there."""
    if isinstance(error, Skipped):
        return f"skipped: {error}"
    if isinstance(error, ModuleNotFoundError):
        return f"skipped: {error.name} is {MISSING}"
    return f"failed: {type(error).__name__}: {error}"[:200]


def take_turns(
    base: Work, makers: Mapping[str, Callable[[], Work]], rounds: int, pause: float = PAUSE
) -> Turns:
    """Time contestants in turns, each beside one run of the base, for a number of rounds.

    A maker builds a contestant; what it raises, there or at work, takes that one alone out of the
    contest. Everybody works once before the first round. The order of the contestants rotates from
    round to round, and who of a pair comes first alternates.
    """
    turns, works = Turns(), {}
    base()
    for name, make in makers.items():
        try:
            works[name] = make()
            works[name]()
        except Exception as error:
            works.pop(name, None)
            turns.skipped[name] = reason(error)
    turns.pairs = {name: [] for name in works}
    for i in range(rounds):
        names = list(works)
        for name in names[i % max(len(names), 1) :] + names[: i % max(len(names), 1)]:
            order = (works[name], base) if i % 2 else (base, works[name])
            try:
                taken = []
                for work in order:
                    time.sleep(pause)
                    taken.append(seconds(work))
            except Exception as error:
                del works[name], turns.pairs[name]
                turns.skipped[name] = reason(error)
                continue
            turns.pairs[name].append((taken[0], taken[1]) if i % 2 else (taken[1], taken[0]))
    return turns


def quartiles(values: list[float]) -> list[float]:
    """Return the first quartile, the median and the third."""
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def rows(turns: Turns, base: str, per: int, flips: int | None = None) -> dict[str, dict]:
    """Sum up the turns: milliseconds, and ratios to the base, as medians with quartiles.

    `per` is how often a call does what is counted (sweeps, updates, temperatures); `flips` how many
    units one of them resamples, for rates.
    """
    found: dict[str, dict] = {}
    alone = [b for pairs in turns.pairs.values() for _, b in pairs]
    if alone:
        found[base] = _row(alone, [1.0], per)
    for name, pairs in turns.pairs.items():
        found[name] = _row([a for a, _ in pairs], [a / b for a, b in pairs], per)
    for name, row in found.items():
        if flips is not None and not name.startswith("bare"):
            row["flips_per_ns"] = flips / (row["ms"] * 1e6)
    return found


def _row(times: list[float], ratios: list[float], per: int) -> dict:
    low, middle, high = (1e3 * t / per for t in quartiles(times))
    least, ratio, most = quartiles(ratios)
    return {
        "ms": middle, "ms_quartiles": [low, high],
        "ratio": ratio, "ratio_quartiles": [least, most], "rounds": len(times),
    }  # fmt: skip
