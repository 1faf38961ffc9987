"""The single checks of a certificate: each a verdict, the sentence for it, and its numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.evaluators.equivalence import Equivalence, equivalence, rounded
from gibbsian.evaluators.mixing import (
    LARGEST_RHAT,
    LOWEST_ESS,
    Diagnostics,
    autocorrelation_time,
)
from gibbsian.evaluators.quality import MOST, Privacy, covariance_error, coverage, privacy

# Nearest neighbours may tell rows from samples in three of four cases, where one of two is chance.
_ACCURACY = 0.25
# Copied rows lose about ½; a machine that generalises loses less than this.
_PRIVACY = 0.15
_COPIED = 0.3  # of the samples, beyond chance, nearest to a training row
_SIGMAS = 2.0
_NEIGHBOURS = 5


@dataclass(frozen=True)
class Check:
    """One question that a certificate asks.

    Attributes
    ----------
    name : str
    verdict : {"passed", "failed", "undecided", "reported"}
        Undecided: too little was run, or too few rows are there, to tell. Reported: a number that
        nothing is demanded of.
    words : str
        The verdict in a sentence.
    numbers : mapping
        What it rests on, as plain values.
    needs : mapping of str to int
        Where it is undecided: about how many "chains", "steps", "held_out_rows", "training_rows" or
        "samples" would decide it.
    """

    name: str
    verdict: str
    words: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        # Last, since numbers of comparisons hold a verdict of their own.
        words = {"verdict": self.verdict, "words": self.words, "needs": dict(self.needs)}
        return {**self.numbers, **words}


def compared(
    name: str, found: Equivalence, what: str, advice: tuple[str, str], groups: tuple[str, str],
    steps: int | None = None,
) -> Check:  # fmt: skip
    """Turn an equivalence into a check; `advice` is for differences, and for too little to tell.

    `groups` says what there are more of in each group, and `steps` how many the chains made.
    """
    i = found.worst
    count, low, high = len(found.names), found.low[i], found.high[i]
    numbers = (
        f"{found.names[i]} {found.difference[i]:+.3f} standard deviations, interval {low:+.3f} to "
        f"{high:+.3f}, corrected for {count} observables"
    )
    if found.verdict == "equivalent":
        words = f"{what} agree within ±{found.margin:g} standard deviations (widest: {numbers})."
        return Check(name, "passed", words, found.as_dict())
    if found.verdict == "different":
        apart = [n for n, v in zip(found.names, found.verdicts, strict=True) if v == "different"]
        words = f"{what} differ in {len(apart)} of {count} observables (furthest: {numbers}); {advice[0]}."
        return Check(name, "failed", words, found.as_dict())
    scarce = found.ess is not None and found.ess < LOWEST_ESS
    few = f", {found.ess:.0f} effective draws where {LOWEST_ESS} are asked for" if scarce else ""
    words = (
        f"{what} cannot be told to agree within ±{found.margin:g} standard deviations (widest: "
        f"{numbers}{few}); {advice[1]}."
    )
    needs = dict.fromkeys(groups, 0)
    for group, has, wants in zip(groups, found.sizes, found.needed, strict=True):
        needs[group] = max(needs[group], wants if wants > has else 0)
    if steps is not None and found.ess is not None:
        needs["steps"] = _more(steps, LOWEST_ESS / found.ess)
    return Check(name, "undecided", words, found.as_dict(), {k: n for k, n in needs.items() if n})


def _more(n: int, factor: float) -> int:
    """Return n times the factor, to two figures; 0 where n is enough."""
    return rounded(n * factor) if factor > 1 else 0


def convergence(
    energy: Diagnostics, scarcest: Diagnostics, name: str, ess: float, steps: int
) -> Check:
    """Ask R-hat and effective draws of the energies, and of the observable with the fewest of them.

    Energies alone are blind to modes of equal energy.
    """
    rhat, least = max(energy.rhat, scarcest.rhat), min(ess, energy.ess)
    numbers = {
        **energy.as_dict(),
        "least_ess": ess,
        "scarcest": name,
        "scarcest_rhat": scarcest.rhat,
    }
    words = (
        f"Split R-hat is {energy.rhat:.3f} for the free energy and {scarcest.rhat:.3f} for the observable "
        f"with the fewest effective draws ({name}, {least:.0f} draws)"
    )
    if rhat < LARGEST_RHAT and least >= LOWEST_ESS:
        return Check("convergence", "passed", f"{words}.", numbers)
    verdict = "undecided" if rhat < LARGEST_RHAT else "failed"
    needs = {"steps": _more(steps, LOWEST_ESS / least)} if verdict == "undecided" else {}
    return Check(
        "convergence", verdict,
        f"{words}, where below {LARGEST_RHAT} and at least {LOWEST_ESS} are asked for; run longer chains.",
        numbers, needs,
    )  # fmt: skip


def drift(
    energies: Float[Tensor, "draws chains"], steps: int, wanted: int, whole: int | None = None
) -> Check:
    """Ask whether the mean energy of noise-started chains still moves over their last `steps` steps.

    The second half of them minus the first, chain by chain, against zero. `whole` is the number of steps a
    chain has to make so that `wanted` of them are looked at.
    """
    middle = len(energies) // 2
    moved = energies[middle:].mean(dim=0) - energies[:middle].mean(dim=0)
    found = equivalence(
        moved[:, None], torch.zeros_like(moved)[:, None],
        energies.double().std().reshape(1), ["free energy"],
    )  # fmt: skip
    what = f"The halves of the last {steps:,} steps of the chains from noise"
    check = compared(
        "drift", found, what,
        ("their free energy still drifts, so run longer chains", "run more or longer chains"),
        ("chains", "chains"),
    )  # fmt: skip
    needs = dict(check.needs) | ({"steps": whole or wanted} if steps < wanted else {})
    numbers = {**check.numbers, "steps": steps, "steps_wanted": wanted}
    if check.verdict == "passed" and steps < wanted:
        words = (
            f"The free energy of the chains from noise does not drift over {steps:,} steps, but "
            f"{wanted:,} are asked for; run chains of {whole or wanted:,} steps."
        )
        return Check("drift", "undecided", words, numbers, needs)
    return Check(
        "drift", check.verdict, check.words, numbers, needs if check.verdict == "undecided" else {}
    )


def autocorrelation(
    tau: float, training_steps: int | None, persistent: bool | None = None
) -> Check:
    """Set the autocorrelation time beside the steps of an update (Decelle et al. 2021).

    Chains that start anew at each update have to reach equilibrium in its steps, or the machine learns to
    make samples in so many steps, and its chains leave the data in more. Chains that are kept from update
    to update (`persistent`) need fewer: they stay near equilibrium as long as the machine changes little
    while they forget themselves, which these numbers cannot tell, so that `equilibrium` is None for them.
    ``persistent=None`` is for training that is not known.
    """
    numbers: dict[str, Any] = {
        "autocorrelation_time": tau,
        "training_steps": training_steps,
        "persistent": persistent,
    }
    words = f"Free energies of chains forget themselves in {tau:.1f} steps"
    if training_steps is None:
        return Check("autocorrelation", "reported", f"{words}.", numbers)
    numbers["equilibrium"] = equilibrium = training_steps >= tau
    numbers["regime"] = "equilibrium" if equilibrium else "out of equilibrium"
    words = f"{words}, and the machine was trained with {training_steps} an update"
    if persistent is not None:
        words += " of chains " + ("kept from update to update" if persistent else "begun anew")
    if equilibrium:
        words += ": in the equilibrium regime."
    elif persistent:
        numbers |= {"equilibrium": None, "regime": "followed from update to update"}
        updates = math.ceil(tau / training_steps)
        words += f", which follow it in equilibrium where {updates:,} updates change it little."
    else:
        words += ": in the out-of-equilibrium regime"
        if persistent is None:
            words += ", unless its chains were kept from update to update"
        words += "."
    return Check("autocorrelation", "reported", words, numbers)


def quality(
    train: Float[Tensor, "n d"], held_out: Float[Tensor, "k d"], samples: Float[Tensor, "m d"],
    seed: int = 0, training: Iterable[Tensor] | None = None,
) -> list[Check]:  # fmt: skip
    """Set samples beside training and held-out rows: see `gibbsian.evaluators.quality`."""
    found = privacy(train, held_out, samples, seed, training)
    checks = [_resemblance(found), _privacy(found)]
    n = min(len(held_out), len(samples), len(train))
    if n > _NEIGHBOURS:
        pair = [coverage(held_out, x[:n], _NEIGHBOURS, seed).as_dict() for x in (samples, train)]
        made, real = pair
        words = "; ".join(f"{k} {made[k]:.2f} (training rows: {real[k]:.2f})" for k in made)
        checks.append(
            Check("coverage", "reported", f"Against held-out rows: {words}.",
                  {**made, "of_training_rows": real, "neighbours": _NEIGHBOURS})
        )  # fmt: skip
    error, usual = covariance_error(held_out, samples), covariance_error(held_out, train)
    words = (
        f"Pair covariances of samples differ from held-out rows' by a mean square of {error:.2e}, those "
        f"of training rows by {usual:.2e}."
    )
    numbers = {"epsilon2": error, "of_training_rows": usual, "samples": len(samples)}
    return [*checks, Check("covariance", "reported", words, numbers)]


def _resemblance(found: Privacy) -> Check:
    aa = found.test
    half = _SIGMAS * aa.standard_error
    off = abs(aa.value - 0.5)
    verdict = (
        "passed" if off + half < _ACCURACY else "failed" if off - half > _ACCURACY else "undecided"
    )
    words = (
        f"Nearest neighbours tell samples from held-out rows with accuracy {aa.value:.3f} ± {half:.3f}, "
        f"where 0.5 is chance"
    )
    more = {
        "passed": "",
        "failed": f" and within {_ACCURACY} of it is asked for; train longer or with more hidden units",
        "undecided": f" and within {_ACCURACY} of it is asked for; give more samples and rows",
    }[verdict]
    needs = _needs(verdict, aa.size, [(off, half, _ACCURACY)])
    return Check(
        "resemblance", verdict, f"{words}{more}.", aa.as_dict() | {"error": aa.error}, needs
    )


def _needs(verdict: str, n: int, values: Sequence[tuple[float, float, float]]) -> dict[str, int]:
    """Return the rows and samples at which errors, which fall with their square root, fit below limits."""
    room = [(x, half, limit) for x, half, limit in values if x < limit <= x + half]
    if verdict != "undecided" or not room:
        return {}
    most = max((half / (limit - x)) ** 2 for x, half, limit in room)
    wanted = _more(n, 1.1 * most)
    # Distances are taken of so many rows at most, so that more would not decide it.
    return dict.fromkeys(("held_out_rows", "samples"), wanted) if wanted <= MOST else {}


def _privacy(found: Privacy) -> Check:
    values = (
        (found.loss, _SIGMAS * found.standard_error, _PRIVACY),
        (found.copied, _SIGMAS * found.copied_error, _COPIED),
    )
    copied = any(x - half > limit for x, half, limit in values)
    fine = all(x + half < limit for x, half, limit in values)
    verdict = "failed" if copied else "passed" if fine else "undecided"
    (loss, loss_half, _), (share, share_half, _) = values
    words = (
        f"Samples lie nearer to training rows than to held-out ones by a privacy loss of {loss:+.3f} ± "
        f"{loss_half:.3f}, and {share:+.3f} ± {share_half:.3f} of them beyond chance have a training row as "
        "their nearest"
    )
    more = {
        "passed": f" (below {_PRIVACY} and {_COPIED})",
        "failed": ": they copy training rows, so train shorter, on more rows, or with a penalty",
        "undecided": f", where below {_PRIVACY} and {_COPIED} are asked for; give more samples "
        "and rows",
    }[verdict]
    return Check(
        "privacy",
        verdict,
        f"{words}{more}.",
        found.as_dict(),
        _needs(verdict, found.test.size, values),
    )


def effective(series: Float[Tensor, "draws chains q"]) -> list[float]:
    """Return the effective draws of each observable, draws × chains / τ."""
    n, chains, q = series.shape
    times = [max(autocorrelation_time(series[..., i].cpu()), 1.0) for i in range(q)]
    return [n * chains / t for t in times]


def spread(series: Float[Tensor, "draws chains q"]) -> Float[Tensor, " q"]:
    """Return the standard deviation of each observable over all draws."""
    return series.reshape(-1, series.shape[-1]).std(dim=0)


def thinned(late: Float[Tensor, "times chains n"], spacing: float, tau: float) -> Tensor:
    """Return states at least 2τ apart, the last first: their chains have forgotten the ones before."""
    stride = max(1, round(0.5 + 2 * tau / max(spacing, 1e-12)))
    return torch.cat(list(late.flip(0)[::stride]))
