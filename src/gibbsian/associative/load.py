"""The capacity experiment: how well random patterns are recalled against their number."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Generator

from gibbsian.arguments import number, whole
from gibbsian.associative.memory import AssociativeMemory, overlap
from gibbsian.errors import GibbsianError, GibbsianWarning

RULES: dict[str, Callable[[Any], AssociativeMemory]] = {
    "hebbian": AssociativeMemory.hebbian,
    "pseudo-inverse": AssociativeMemory.pseudo_inverse,
}


@final
@dataclass(frozen=True)
class Loaded:
    """What a memory recalls at one load.

    Attributes
    ----------
    load : float
        Patterns per spin, α = p/n, of the whole number p of patterns.
    patterns : int
    overlap, standard_error : float
        Mean overlap of a recalled state with its pattern, over trials of fresh random patterns,
        and its standard error from the scatter between trials.
    """

    load: float
    patterns: int
    overlap: float
    standard_error: float

    @property
    def point(self) -> tuple[float, float, float]:
        """Load, overlap and standard error, as `gibbsian.plots.capacity` draws them."""
        return self.load, self.overlap, self.standard_error


def capacity(
    loads: Any,
    rule: str = "hebbian",
    size: int = 500,
    flip: float = 0.0,
    trials: int = 10,
    probes: int = 20,
    generator: Generator | int | None = None,
) -> list[Loaded]:
    """Measure how well random patterns are recalled against their number.

    Started at the patterns themselves (``flip=0``), Hebb's rule holds them up to a load of about
    0.138 and then loses them all at once (Amit, Gutfreund & Sompolinsky 1985; the step is smeared
    out, and later, in a few hundred spins). The pseudo-inverse holds them to a load of 1; what
    shrinks before is how far from a pattern a cue may start, so give it some flips (Kanter &
    Sompolinsky 1987). Near a load of 1 its couplings vanish, and a cue stays as it is: an overlap of
    1 − 2·flip, which `gibbsian.plots.capacity(…, flip=flip)` draws beside them.

    Parameters
    ----------
    loads : sequence of float
        Patterns per spin.
    rule : {"hebbian", "pseudo-inverse"}
    size : int
        Spins n.
    flip : float
        Chance of each spin of a cue to be wrong.
    trials : int
        Sets of patterns at each load, at least 2.
    probes : int
        Most patterns recalled of each set.
    generator : torch.Generator or int
        Source of randomness, or a seed.

    Raises
    ------
    GibbsianError
        If a setting is impossible.
    """
    if rule not in RULES:
        raise GibbsianError(f"There is no rule {rule!r}; known are {', '.join(RULES)}.")
    try:
        loads = list(loads)
    except TypeError:
        raise GibbsianError(
            f"The loads are a list of numbers of patterns per spin, such as [0.1], and {loads!r} is none."
        ) from None
    if not loads or any(number(a, "A load") <= 0 for a in loads):
        raise GibbsianError(
            "The loads are positive numbers of patterns per spin; give at least one."
        )
    if not 0 <= number(flip, "The fraction of flipped spins") <= 0.5:
        raise GibbsianError(f"The fraction of flipped spins lies from 0 to 0.5, not {flip}.")
    size, probes = whole(size, "The number of spins", 2), whole(probes, "The number of probes")
    trials = whole(trials, "The number of trials", 2)
    if not isinstance(generator, Generator):
        generator = Generator().manual_seed(
            whole(0 if generator is None else generator, "The seed", 0)
        )
    found = []
    for load in loads:
        p = max(1, round(load * size))
        each = [_trial(rule, p, size, flip, probes, generator) for _ in range(trials)]
        m = torch.tensor(each, dtype=torch.float64)
        error = float(m.std()) / trials**0.5
        found.append(Loaded(p / size, p, float(m.mean()), error))
    return found


def _trial(rule: str, p: int, size: int, flip: float, probes: int, generator: Generator) -> float:
    """Store p random patterns, recall some of them, and return the mean overlap."""
    bits = torch.randint(0, 2, (p, size), generator=generator)
    patterns = (2 * bits - 1).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GibbsianWarning)  # beyond a load of 1 all are dependent
        memory = RULES[rule](patterns)
    wanted = patterns[:probes]
    wrong = torch.rand(wanted.shape, generator=generator) < flip
    recalled = memory.recall(torch.where(wrong, -wanted, wanted), generator)
    return float(overlap(recalled.states, wanted).mean())
