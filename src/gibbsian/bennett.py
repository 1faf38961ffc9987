"""Bennett's acceptance ratio: the difference of two log partition functions from samples of both."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 100


def bar(w0: Float[Tensor, " n0"], w1: Float[Tensor, " n1"]) -> float:
    """Return log Z_1 − log Z_0 in nats (Bennett 1976).

    It is −d with Σ σ(d − M − w0) = Σ σ(M − w1 − d), M = log(n0/n1), found by bisection in float64.

    Parameters
    ----------
    w0 : Tensor (n0,)
        F_1 − F_0 at samples of machine 0.
    w1 : Tensor (n1,)
        F_0 − F_1 at samples of machine 1.
    """
    w0, w1 = w0.double(), w1.double()
    shift = math.log(len(w0) / len(w1))

    def excess(d: float) -> float:
        return float(
            torch.sigmoid(d - shift - w0).sum() - torch.sigmoid(shift - w1 - d).sum()
        )  # rises with d

    low = float(torch.min(w0.min(), -w1.max())) - abs(shift) - 40
    high = float(torch.max(w0.max(), -w1.min())) + abs(shift) + 40
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return -(low + high) / 2
