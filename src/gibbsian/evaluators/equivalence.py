"""Equivalence of two groups of independent chains or rows, by intervals: scarce chains never help."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.errors import GibbsianError
from gibbsian.evaluators.mixing import EQUIVALENCE, LOWEST_ESS

_LEVEL = 0.05  # of all intervals together
# Chance that all intervals lie within the margin, where there is no difference, with as many chains or rows
# as are called for.
_DECIDES = 0.9
_SURE = 0.0027  # of all "different" together: three standard errors for one observable


@dataclass(frozen=True)
class Equivalence:
    """Standardised differences of many observables, with their joint intervals.

    Attributes
    ----------
    names : tuple of str
        The observables.
    difference, low, high : tuple of float
        First group minus second, in standard deviations of the observable within the second; and the
        ends of intervals that hold all true differences at once in 95 % of cases (Bonferroni).
    verdicts : tuple of {"equivalent", "different", "undecided"}
        Of each observable.
    margin : float
        Differences up to this count as none.
    ess : float or None
        The least effective number of draws of either group, where it was given.
    sizes : tuple of int
        Chains or rows in either group.
    needed : tuple of int
        How many there would have to be, roughly, for every interval to lie within the margin nine times in
        ten, if there is no difference and a single chain or row goes on to scatter as it does.
    """

    names: tuple[str, ...]
    difference: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    verdicts: tuple[str, ...]
    margin: float
    ess: float | None = None
    sizes: tuple[int, int] = (0, 0)
    needed: tuple[int, int] = (0, 0)

    @property
    def verdict(self) -> str:
        """Equivalent if all are, on 400 effective draws; different if any one is; else undecided."""
        if "different" in self.verdicts:
            return "different"
        enough = self.ess is None or self.ess >= LOWEST_ESS
        return "equivalent" if enough and set(self.verdicts) == {"equivalent"} else "undecided"

    @property
    def worst(self) -> int:
        """The observable whose interval reaches furthest from 0."""
        reach = [max(-a, b) for a, b in zip(self.low, self.high, strict=True)]
        return reach.index(max(reach))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; None for those that are not finite."""
        parts = zip(self.names, self.difference, self.low, self.high, self.verdicts, strict=True)
        return {
            "verdict": self.verdict,
            "margin": self.margin,
            "ess": self.ess,
            "sizes": list(self.sizes),
            "needed": list(self.needed),
            "observables": {
                n: {"difference": _finite(d), "low": _finite(a), "high": _finite(b), "verdict": v}
                for n, d, a, b, v in parts
            },
        }


def equivalence(
    a: Float[Tensor, "chains q"],
    b: Float[Tensor, "others same"],
    scale: Float[Tensor, " q"] | None = None,
    names: Sequence[str] | None = None,
    *,
    margin: float = EQUIVALENCE,
    ess: float | None = None,
    scatter: Float[Tensor, " q"] | None = None,
) -> Equivalence:
    """Compare the means of q observables between two groups of independent chains.

    The interval of each is Welch's (1947), d ± t·√(s_a²/n_a + s_b²/n_b), in units of the observable's
    standard deviation σ, at the level 1 − 0.05/q (Bonferroni): all hold at once in 95 % of cases. To
    each s²/n is added (σ/n)²: n chains that all agree do not exclude what one in n shows, so a few
    chains stuck in one place, whose means do not scatter, have wide intervals all the same.

    Parameters
    ----------
    a, b : Tensor (chains, q)
        Mean of each observable along each chain; a row of data is a chain of one draw. Chains must be
        independent, their draws need not be. `b` is the reference.
    scale : Tensor (q,), optional
        Standard deviation of each observable within the reference group, draw by draw; that of `b`'s
        rows unless given. Where it is 0, the root mean square of both groups' stands in for it, and
        where both are constant, 1.
    names : sequence of str, optional
        Of the observables.
    margin : float
        Differences up to this many standard deviations count as none.
    ess : float, optional
        Least effective number of draws of either group; nothing is equivalent below 400.
    scatter : Tensor (q,), optional
        A standard deviation that rows of `b` have at the least: that of single draws as the chains of `a`
        know it, where few rows of a skewed observable would seem to scatter less.

    Raises
    ------
    GibbsianError
        If a group has fewer than 2 chains, or the observables do not fit.
    """
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1] or not a.shape[1]:
        raise GibbsianError(
            "Equivalence needs at least 2 chains in each group and the same observables in both, not "
            f"{len(a)} and {len(b)} chains of {a.shape[1]} and {b.shape[1]} observables."
        )
    names = tuple(names or (f"observable {i}" for i in range(a.shape[1])))
    unit = _units(a, b, scale)
    known = torch.isfinite(a).all(dim=0) & torch.isfinite(b).all(dim=0)
    parts = [_part(x / unit) for x in (a, b)]
    if scatter is not None:
        least = (scatter.detach().cpu().double() / unit).square()
        parts[1] = parts[1] + (least - (b / unit).var(dim=0)).clamp(min=0) / len(b)
    error = (parts[0] + parts[1]).sqrt()
    difference, freedom = (a / unit).mean(dim=0) - (b / unit).mean(dim=0), _freedom(parts, a, b)
    from scipy.stats import t as student

    q = len(names)
    times = torch.from_numpy(student.ppf(1 - _LEVEL / (2 * q), freedom.numpy()))
    chance = torch.from_numpy(2 * student.sf((difference / error).abs().numpy(), freedom.numpy()))
    low, high = difference - times * error, difference + times * error
    verdicts = _verdicts(known, low, high, chance, margin)
    middle, left, right = (tuple(x.tolist()) for x in (difference, low, high))
    sizes = (len(a), len(b))
    needed = _needed(parts, sizes, _room(margin, times))
    return Equivalence(names, middle, left, right, verdicts, margin, ess, sizes, needed)


def _verdicts(
    known: Tensor, low: Tensor, high: Tensor, chance: Tensor, margin: float
) -> tuple[str, ...]:
    """Judge each observable by its interval, or by how unlikely its difference is without one."""
    columns = (known.tolist(), low.tolist(), high.tolist(), chance.tolist())
    return tuple(
        "undecided" if not ok
        else "equivalent" if max(-lo, hi) < margin
        else "different" if p < _SURE / len(known)
        else "undecided"
        for ok, lo, hi, p in zip(*columns, strict=True)
    )  # fmt: skip


def _room(margin: float, times: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
    """Return the squared error e² at which margins are wide enough: t e for the interval, z e for chance.

    All q differences of standard error e lie within z e of 0 in 90 % of cases, and their intervals, which
    reach t e further, within the margin where (t + z) e is.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + _DECIDES ** (1 / len(times))) / 2))
    return (margin / (times + z)).square()


def _needed(
    parts: Sequence[Tensor], sizes: tuple[int, int], room: Float[Tensor, " q"]
) -> tuple[int, int]:
    """Return sizes of both groups at which their shares of the squared error fit into `room`.

    A group whose share takes less than half of it stays as it is where the other can grow alone.
    """
    one, two = parts
    factors = [
        torch.where(y <= room / 2, x / (room - y), 2 * x / room)
        for x, y in ((one, two), (two, one))
    ]
    found = []
    for n, x, f in zip(sizes, (one, two), factors, strict=True):
        enough = (one + two <= room) | (x <= room / 2)
        worst = float(torch.where(enough, torch.ones_like(f), f).nan_to_num(1.0).max())
        found.append(rounded(n * max(worst, 1.0)) if worst > 1 else n)
    return found[0], found[1]


def rounded(x: float) -> int:
    """Round up to two figures: nothing more is known of a size that is called for."""
    step = 10 ** max(math.floor(math.log10(x)) - 1, 0)
    return math.ceil(min(x, 1e15) / step) * step


def _units(a: Tensor, b: Tensor, scale: Tensor | None) -> Tensor:
    """Return the unit of each observable, which is never 0."""
    own = b.std(dim=0) if scale is None else scale.detach().cpu().double()
    both = ((a.var(dim=0) + b.var(dim=0)) / 2).sqrt()
    tiny = 1e-6 * b.mean(dim=0).abs() + 1e-12  # what rounding leaves of a constant
    pooled = torch.where(both > tiny, both, torch.ones_like(both))
    return torch.where(own > tiny, own, pooled)


def _part(x: Tensor) -> Tensor:
    """Return a group's share of the squared error of a difference of means."""
    return x.var(dim=0) / len(x) + 1 / len(x) ** 2


def _freedom(parts: Sequence[Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Return Welch's degrees of freedom."""
    total = parts[0] + parts[1]
    return total**2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (a, b), strict=True))


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
