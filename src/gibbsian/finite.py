"""The watch for trainings that blow up: numbers that are not finite, or too large to be believed."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from gibbsian.errors import GibbsianWarning
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import base as unit

# Reading a number from a GPU makes the host wait for it, so there it is read so often only.
_EVERY = 32


# A flip of one unit would change the odds of another by e^100.
_LARGE = 100.0


def warn_of_size(machine: BoltzmannMachine) -> None:
    """Warn of couplings between bounded units that are larger than any data call for."""
    bounded = [bool(unit.tail_precision(u).isinf().all()) for u in machine.layers]
    for c, pair in zip(machine.joints, pairwise(bounded), strict=True):
        largest = float(c.weight.detach().abs().max()) if all(pair) and c.is_matrix else 0.0
        if largest > _LARGE:
            warnings.warn(
                f"couplings have grown to {largest:.3g}, so this training has probably blown up; lower the "
                "learning rate",
                GibbsianWarning,
                stacklevel=3,
            )
            return


class Finite:
    """Remembers for each gradient the first update at which it was not finite; a GPU does not wait for it.

    Parameters
    ----------
    names : sequence of str
        Of the gradients to watch.
    device : torch.device
        Where they are.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = list(names)
        self.every = 1 if device.type == "cpu" else _EVERY
        self._first = torch.zeros(len(self.names), dtype=torch.int32, device=device)

    def note(self, gradient: Mapping[str, Tensor], step: int) -> None:
        """Look at the gradients of update `step`, counted from 1."""
        # One value that is not finite makes the whole sum so.
        sums = [gradient[name].sum() for name in self.names]
        if self.every == 1 and all([math.isfinite(t.item()) for t in sums]):
            return
        bad = ~torch.isfinite(torch.stack(sums))
        self._first.masked_fill_(bad & (self._first == 0), step)

    def found(self) -> tuple[str, int] | None:
        """Return the name of the earliest such gradient and its update, or None."""
        first = self._first.tolist()
        return min(
            ((n, s) for n, s in zip(self.names, first, strict=True) if s),
            key=lambda pair: pair[1],
            default=None,
        )
