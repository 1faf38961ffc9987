"""Autocorrelation times of an exchange, told from its accepted swaps in two ways."""

import math
from itertools import count

import torch
from jaxtyping import Bool
from torch import Tensor

# Correlations below this say nothing about the slowest decay.
_SEEN = 0.05
# The sum of the flips' correlations ends after so many τ_int (Sokal 1997).
_WINDOW = 6


class Clock:
    """Watches chains that exchange states, sweep by sweep.

    A chain forgets where it was when a swap is accepted. With S(t) the share of chains without one in their
    first t sweeps, τ_int = ½ + Σ_t S(t) and τ_exp = max −t/log S(t) over S > 0.05: `times`.

    The published code of PTT takes a sign per chain, s = ±1, that flips at every accepted swap, and its
    autocorrelation C(t): `flips`. The sign alternates where more than half of the swaps are accepted, and
    returns by two flips without the chain having come back, so that these times are shorter: swaps that are
    accepted independently with probability A have S(t) = (1 − A)^t and C(t) = (1 − 2A)^t, hence 2.8 sweeps
    against 1.2 at A = 0.3.
    """

    def __init__(self) -> None:
        self.sweeps, self._acceptance = 0, []
        self._waiting: Tensor | None = None
        self._hits: list[Tensor] = []
        self._sum, self._slowest, self._share = 0.5, 0.5, 0.0

    def tick(self, acceptance: float, hit: Bool[Tensor, " chains"]) -> None:
        """Count a sweep."""
        self.sweeps += 1
        self._acceptance.append(acceptance)
        self._hits.append(hit)
        self._waiting = ~hit if self._waiting is None else self._waiting & ~hit
        self._share = float(self._waiting.double().mean())
        self._sum += self._share
        if _SEEN < self._share < 1:
            self._slowest = max(self._slowest, -self.sweeps / math.log(self._share))

    def times(self) -> tuple[float, float]:
        """Return τ_int and τ_exp of the survival, in sweeps."""
        stuck = float(self.sweeps) if self._share == 1 else 0.0
        return self._sum, max(self._slowest, stuck)

    def flips(self) -> tuple[float, float]:
        """Return τ_int and τ_exp of the flipping signs, in sweeps, over all pairs of sweeps t apart."""
        odd = torch.stack(self._hits).cumsum(dim=0) % 2
        signs = 1.0 - 2.0 * odd
        total, slowest = 0.5, 0.5
        for t in count(1):
            if t >= min(len(signs), _WINDOW * total):
                return total, slowest
            c = float((signs[t:] * signs[:-t]).mean())
            total += c
            if _SEEN < c < 1:
                slowest = max(slowest, -t / math.log(c))
        raise AssertionError  # the count has no end

    def late(self) -> float:
        """Return the mean acceptance in the later half of the sweeps."""
        kept = self._acceptance[len(self._acceptance) // 2 :]
        return sum(kept) / len(kept)
