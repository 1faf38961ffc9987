"""log Z as a training follows it, with its error, and the weights that it rests on."""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class OnlineLogZ:
    """What a training knows of a machine's log Z by the end, from what it carried along.

    Attributes
    ----------
    log_z, standard_error : float
        In nats. Errors of all stretches on the way are added as if they were independent.
    ess : float
        Effective number of the samples that the last stretch rests on.
    source : str
        What told it, in words.
    """

    log_z: float
    standard_error: float
    ess: float
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))


def log_mean_exp(log_weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the logarithm of the mean weight."""
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


def effective(log_weights: Float[Tensor, " n"]) -> float:
    """Return the effective number (Σ w)²/Σ w² of weighted chains (Kong 1992)."""
    w = (log_weights - log_weights.max()).exp()
    return float(w.sum() ** 2 / (w**2).sum())


def weights_variance(log_weights: Float[Tensor, " n"]) -> float:
    """Return the variance of log mean w of n independent weights, 1/ESS − 1/n by the delta method."""
    return max(1 / effective(log_weights.double()) - 1 / len(log_weights), 0.0)
