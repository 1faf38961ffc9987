"""The Polyak average of parameters (Polyak & Juditsky 1992), by exponential forgetting."""

from collections.abc import Sequence

import torch
from torch import Tensor

# An average that remembers more updates than the first takes in one of the second.
_LONG, _STRIDE = 50, 4


@torch.no_grad()
def take_in(pairs: Sequence[tuple[Tensor, Tensor]], step: int, decay: float) -> None:
    """Move averages towards the parameters after update `step`, counted from 1.

    Parameters
    ----------
    pairs : sequence of (average, parameter)
    step : int
    decay : float
        What an average keeps at each update. A young one forgets faster, or it would remember the start
        for long; one that remembers long looks at every fourth update only.
    """
    now = min(decay, (1 + step) / (10 + step))
    stride = _STRIDE if now > 1 - 1 / _LONG else 1
    if step % stride == 0:
        for average, p in pairs:
            average.lerp_(p, 1 - now**stride)
