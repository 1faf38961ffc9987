"""The watch for gradients that are not finite, without making a GPU wait for the host."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Reading a number from a GPU makes the host wait for it, so there it is read so often only.
_EVERY = 32


class Finite:
    """Remembers for each gradient the first update at which it was not finite.

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
