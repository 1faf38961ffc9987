"""Bennett's acceptance ratio: the difference of two log partition functions from samples of both."""

import math

from torch import Tensor
from torch.nn.functional import logsigmoid


def log_ratio(w0: Tensor, w1: Tensor) -> float:
    """Return log Z_1 − log Z_0 in nats (Bennett 1976).

    It is −d with Σ σ(d − M − w0) = Σ σ(M − w1 − d) and M = log(n_0/n_1), found by bisection on the
    logarithms of both sides, in float64.

    Parameters
    ----------
    w0, w1 : Tensor
        F_1 − F_0 at n_0 samples of machine 0, and F_0 − F_1 at n_1 samples of machine 1, in nats.
    """
    w0, w1 = w0.double(), w1.double()
    m = math.log(w0.numel() / w1.numel())
    # Beyond these ends the left side is less, or more, than the right one, term by term.
    ends = [float(f) for f in (w0.min() + m, w0.max() + m, m - w1.min(), m - w1.max())]
    low, high = min(ends) - abs(m) - 1, max(ends) + abs(m) + 1
    while high - low > 1e-10 * (1 + abs(low) + abs(high)):
        d = (low + high) / 2
        left, right = logsigmoid(d - m - w0), logsigmoid(m - w1 - d)
        more = left.flatten().logsumexp(0) > right.flatten().logsumexp(0)
        low, high = (low, d) if more else (d, high)
    return -(low + high) / 2


def standard_error(w0: Tensor, w1: Tensor, ratio: float) -> float:
    """Return the standard error of `log_ratio` in nats, for independent samples.

    With g0 = σ(d − M − w0) and g1 = σ(M − w1 − d), whose sums are equal at d, it is
    √(n_0 Var g0 + n_1 Var g1) / Σ g (1 − g), the error of the root of that equation.
    """
    w0, w1 = w0.double().flatten(), w1.double().flatten()
    m, d = math.log(len(w0) / len(w1)), -ratio
    g = [(d - m - w0).sigmoid(), (m - w1 - d).sigmoid()]
    slope = sum(float((x * (1 - x)).sum()) for x in g)
    noise = sum(len(x) * float(x.var()) for x in g if len(x) > 1)
    return math.sqrt(noise) / slope if slope else math.inf
