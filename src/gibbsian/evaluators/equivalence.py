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
    """

    names: tuple[str, ...]
    difference: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    verdicts: tuple[str, ...]
    margin: float
    ess: float | None = None

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
    difference, error, freedom = _welch(a / unit, b / unit)
    from scipy.stats import t as student

    q = len(names)
    half = torch.from_numpy(student.ppf(1 - _LEVEL / (2 * q), freedom.numpy())) * error
    chance = torch.from_numpy(2 * student.sf((difference / error).abs().numpy(), freedom.numpy()))
    low, high = difference - half, difference + half
    verdicts = [
        "undecided" if not ok
        else "equivalent" if max(-lo, hi) < margin
        else "different" if p < _SURE / q
        else "undecided"
        for ok, lo, hi, p in zip(
            known.tolist(), low.tolist(), high.tolist(), chance.tolist(), strict=True
        )
    ]  # fmt: skip
    middle, left, right = (tuple(x.tolist()) for x in (difference, low, high))
    return Equivalence(names, middle, left, right, tuple(verdicts), margin, ess)


def _units(a: Tensor, b: Tensor, scale: Tensor | None) -> Tensor:
    """Return the unit of each observable, which is never 0."""
    own = b.std(dim=0) if scale is None else scale.detach().cpu().double()
    both = ((a.var(dim=0) + b.var(dim=0)) / 2).sqrt()
    tiny = 1e-6 * b.mean(dim=0).abs() + 1e-12  # what rounding leaves of a constant
    pooled = torch.where(both > tiny, both, torch.ones_like(both))
    return torch.where(own > tiny, own, pooled)


def _welch(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return differences of means, their standard errors and Welch's degrees of freedom."""
    parts = [x.var(dim=0) / len(x) + 1 / len(x) ** 2 for x in (a, b)]
    total = parts[0] + parts[1]
    freedom = total**2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (a, b), strict=True))
    return a.mean(dim=0) - b.mean(dim=0), total.sqrt(), freedom


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
