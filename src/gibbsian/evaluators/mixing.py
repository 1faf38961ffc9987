"""Whether chains forget where they started: the numbers that are read from their energies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.errors import GibbsianError
from gibbsian.evaluators.chains import Trace

# Differences within this many standard deviations of the energy count as none.
EQUIVALENCE = 0.1
# What chains must show to be called mixed. Split R-hat compares single chains: with a hundred of
# them their mean is good long before each has travelled far enough for the 1.01 asked of four.
LARGEST_RHAT = 1.1
LOWEST_ESS = 400
_SURE = 0.0027  # two-sided chance beyond three standard errors
_LEAST_DRAWS = 4
_WINDOW = 5.0


@dataclass(frozen=True)
class Diagnostics:
    """How well chains mixed, read from their energies.

    Attributes
    ----------
    rhat : float
        Rank-normalised split R-hat (Vehtari et al. 2021): near 1 if chains agree.
    ess : float
        Bulk effective number of draws, of all chains together.
    autocorrelation_time : float
        Steps from one independent draw to the next, τ = 1 + 2 Σ_t ρ(t).
    draws, chains : int
    """

    rhat: float
    ess: float
    autocorrelation_time: float
    draws: int
    chains: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; None for those that are not finite."""
        return _plain(vars(self))


def diagnose(energies: Float[Tensor, "draws chains"], thin: int = 1) -> Diagnostics:
    """Return R-hat, effective draws and autocorrelation time of traces, `thin` steps apart.

    Energies that never change (a machine without couplings or biases) count as independent draws.

    Raises
    ------
    GibbsianError
        If there are fewer than 2 chains, or too few draws.
    """
    n, chains = energies.shape
    if chains < 2 or n < _LEAST_DRAWS:
        raise GibbsianError(
            f"Chain checks need at least 2 chains of {_LEAST_DRAWS} draws, not {chains} of {n}; run "
            "more chains or more steps."
        )
    x = energies.detach().cpu().double().numpy()
    if np.ptp(x) == 0:
        return Diagnostics(1.0, float(x.size), float(thin), n, chains)
    from arviz_stats.base.array import array_stats

    # Ranks of equal energies would follow the order of the chains: a tiny jitter breaks ties evenly.
    x = x + x.std() * 1e-6 * np.random.default_rng(0).standard_normal(x.shape)
    rhat = np.asarray(array_stats.rhat(x, chain_axis=1, draw_axis=0, method="rank")).item()
    ess = np.asarray(array_stats.ess(x, chain_axis=1, draw_axis=0, method="bulk")).item()
    return Diagnostics(
        float(rhat),
        float(ess),
        thin * autocorrelation_time(torch.from_numpy(x)),
        n,
        chains,
    )


def autocorrelation_time(x: Float[Tensor, "draws chains"]) -> float:
    """Return the integrated autocorrelation time τ = 1 + 2 Σ_{t=1}^{M} ρ(t), in draws.

    M is the least window with M ≥ 5 max(τ(M), 1) (Sokal 1997). Deviations are taken from the mean over all
    chains, so chains that stay apart show as correlation that does not die out. A run shorter than
    about 50 τ gives too small a value.
    """
    n = len(x)
    y = x.double() - x.double().mean()
    size = 1 << (2 * n - 1).bit_length()
    power = torch.fft.rfft(y, n=size, dim=0).abs().square()
    covariance = torch.fft.irfft(power, n=size, dim=0)[:n].mean(dim=1)
    covariance = covariance / torch.arange(n, 0, -1, dtype=torch.float64)
    if float(covariance[0]) <= 0:
        return 1.0
    rho = covariance / covariance[0]
    tau = 2 * rho.cumsum(dim=0) - 1
    enough = torch.arange(n) >= _WINDOW * tau.clamp(min=1)
    last = int(enough.nonzero()[0]) if bool(enough.any()) else n - 1
    return max(float(tau[last]), 1.0 / n)


@dataclass(frozen=True)
class Comparison:
    """The mean energy of one kind of chains against another.

    Attributes
    ----------
    difference : float
        First minus second, in nats.
    standard_error : float
        Of the difference, from the scatter of chain means: autocorrelation is in it.
    z : float
        The difference in standard errors.
    standardised : float
        The difference in standard deviations of the energy.
    low, high : float
        95 % interval of `standardised`.
    verdict : {"equivalent", "different", "undecided"}
        Equivalent if the interval lies within ±0.1 standard deviations; different if a z like this
        has a chance below 0.27 %; else there are too few chains or steps to tell.
    """

    difference: float
    standard_error: float
    z: float
    standardised: float
    low: float
    high: float
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; None for those that are not finite."""
        return _plain(vars(self))


def compare_chains(a: Float[Tensor, "draws chains"], b: Float[Tensor, "others more"]) -> Comparison:
    """Compare the mean energies of chains with different starts, after their burn-in.

    z = (ā − b̄)/√(s_a²/n_a + s_b²/n_b), with s² the variance between the means of single chains, which
    are independent, however correlated a chain is with itself. The interval is Welch's (1947), with
    Student's distribution for few chains.

    Raises
    ------
    GibbsianError
        If either has fewer than 2 chains.
    """
    if min(a.shape[1], b.shape[1]) < 2 or not len(a) or not len(b):
        raise GibbsianError(
            "Chains are compared by at least 2 chains of each kind, with a draw each."
        )
    a, b = a.cpu().double(), b.cpu().double()
    one, two = a.mean(dim=0), b.mean(dim=0)
    difference = float(one.mean() - two.mean())
    error = math.sqrt(float(one.var() / len(one) + two.var() / len(two)))
    spread = math.sqrt(float(a.var() + b.var()) / 2)
    if spread <= 0:  # constant energies on both sides
        same = difference == 0
        return Comparison(
            difference, 0.0, 0.0, 0.0, 0.0, 0.0, "equivalent" if same else "different"
        )
    from scipy.stats import t as student

    parts = [float(m.var()) / len(m) for m in (one, two)]
    freedom = sum(parts) ** 2 / max(
        sum(p * p / (len(m) - 1) for p, m in zip(parts, (one, two), strict=True)), 1e-300
    )
    z = difference / error if error > 0 else math.copysign(math.inf, difference)
    half = float(student.ppf(0.975, max(freedom, 1.0))) * error
    low, high = (difference - half) / spread, (difference + half) / spread
    if max(abs(low), abs(high)) < EQUIVALENCE:
        verdict = "equivalent"
    else:
        sure = 2 * float(student.sf(abs(z), max(freedom, 1.0))) < _SURE
        verdict = "different" if sure else "undecided"
    return Comparison(difference, error, z, difference / spread, low, high, verdict)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    odd = {k for k, v in values.items() if isinstance(v, float) and not math.isfinite(v)}
    return {k: None if k in odd else v for k, v in values.items()}


@dataclass(frozen=True)
class Mixing:
    """What the chains of `run_chains` say about a machine.

    Attributes
    ----------
    diagnostics : mapping of str to Diagnostics
        Of the chains of each kind of start, and of "all" together.
    comparison : Comparison or None
        Chains from noise against chains from data, where both were run.
    steps : int
        Steps that the chains made; the first half of them is not looked at.
    """

    diagnostics: Mapping[str, Diagnostics]
    comparison: Comparison | None
    steps: int

    @property
    def mixed(self) -> bool:
        """Whether the chains cannot be told apart any more, on enough draws to say so."""
        d = self.diagnostics["all"]
        agree = self.comparison is None or self.comparison.verdict == "equivalent"
        return agree and d.rhat < LARGEST_RHAT and d.ess >= LOWEST_ESS

    def words(self) -> list[str]:
        """Say in a plain sentence whether the chains mixed, and what to try if not."""
        d, c = self.diagnostics["all"], self.comparison
        numbers = f"split R-hat {d.rhat:.3f}, {d.ess:.0f} effective draws"
        if self.mixed:
            apart = "" if c is None else f" ({c.standardised:+.3f} standard deviations apart)"
            return [
                f"Mixed: within {self.steps} steps the chains forgot where they started{apart}; "
                f"{numbers}."
            ]
        if c is not None and c.verdict == "different":
            return [
                f"Not mixed: after {self.steps} steps chains from noise and from data still differ by "
                f"{c.difference:+.2f} nats in mean energy ({abs(c.z):.1f} standard errors; {numbers}); "
                "run longer chains, or train longer with more steps and a smaller learning rate."
            ]
        open_ = []
        if c is not None and c.verdict == "undecided":
            open_.append(
                f"chains from noise and from data lie between {c.low:+.2f} and {c.high:+.2f} standard "
                f"deviations apart, and within ±{EQUIVALENCE} is asked for"
            )
        if d.rhat >= LARGEST_RHAT or d.ess < LOWEST_ESS:
            open_.append(
                f"{numbers}, where below {LARGEST_RHAT} and at least {LOWEST_ESS} are asked for"
            )
        return [
            f"Not certified as mixed: {self.steps} steps of these chains are too few to tell "
            f"({'; '.join(open_)}); run more or longer chains."
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "mixed": self.mixed,
            "steps": self.steps,
            "noise_against_data": self.comparison.as_dict() if self.comparison else None,
            "chains": {k: d.as_dict() for k, d in self.diagnostics.items()},
        }


def check_mixing(traces: Mapping[str, Trace], burn: float = 0.5) -> Mixing:
    """Judge chains by their energies after the first share `burn` of the draws.

    Raises
    ------
    GibbsianError
        If there are too few chains or draws.
    """
    if not traces or not 0 <= burn < 1:
        raise GibbsianError(
            f"Chain checks need at least one trace and a burn-in from 0 to below 1, not {burn}."
        )
    kept = {k: t.after(burn) for k, t in traces.items()}
    thin = next(iter(traces.values())).thin
    found = {k: diagnose(x, thin) for k, x in kept.items()}
    found["all"] = diagnose(torch.cat(list(kept.values()), dim=1), thin)
    both = {"noise", "data"} <= set(kept)
    comparison = compare_chains(kept["noise"], kept["data"]) if both else None
    return Mixing(found, comparison, max(int(t.at[-1]) for t in traces.values()))
