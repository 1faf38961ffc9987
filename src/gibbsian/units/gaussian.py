"""Gaussian units: real values with a learned or fixed mean and precision."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gibbsian import kernels
from gibbsian.errors import DataError
from gibbsian.units.base import Domain, Statistics, Units, check_size

# Standard deviation of the dequantisation noise that bounds precisions: grey levels of a globally
# standardised image are about 0.0127 apart; real data rarely resolve finer than this either.
SIGMA_0 = 0.05


class Real(Domain):
    """Any finite real number.

    `sigma0` is the standard deviation of the dequantisation noise assumed on the data: no precision
    fitted to data exceeds 1/sigma0².
    """

    # Learning rates suit columns of standard deviation 1.
    transform = "standardise"

    def __init__(self, size: int, sigma0: float = SIGMA_0) -> None:
        if not sigma0 >= 0:
            raise DataError(f"sigma0 must be 0 or a positive number, and {sigma0!r} is not.")
        self.size, self.sigma0 = size, float(sigma0)
        self.limits = precision_limits(self.sigma0)

    def check(self, x: Float[Tensor, "rows n"]) -> None:
        """Accept every finite value; shapes and NaN are checked before."""

    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        device = torch.device("cpu") if generator is None else generator.device
        return torch.randn(chains, self.size, generator=generator, device=device)

    def blocks(self) -> list[Tensor | None]:
        return [None] * self.size

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Return θ = γ · mean and γ = 1/(variance + σ₀²)."""
        m = mean["bias"].double()
        # The statistic of the precision is −s²/2.
        variance = (-2 * mean["log_precision"].double() - m**2).clamp(min=0) + self.sigma0**2
        if bool((variance <= 0).any()):
            column = int((variance <= 0).nonzero()[0])
            raise DataError(
                f"Column {column} of the data is constant, so its precision has no bound with "
                "sigma0 = 0; drop the column or give sigma0 > 0."
            )
        return {"bias": m / variance, "log_precision": -variance.log()}


def precision_limits(sigma0: float) -> dict[str, tuple[float, float]]:
    """Return the bounds of log_precision: γ ≤ 1/σ₀² above, a width of e⁵ standard scales below."""
    return {"log_precision": (-60.0, -2 * math.log(sigma0) if sigma0 else math.inf)}


class Gaussian(Units):
    """Real values with e(s) = γ s²/2 − θ s, so s | f ~ N((θ + f)/γ, 1/γ).

    Γ(f) = Σ (θ + f)²/(2γ) + ½ log(2π/γ). γ = exp(log_precision) > 0 by construction.

    Parameters
    ----------
    size : int
        Number of units.
    mean, precision : float
        Values at the start: θ = precision · mean.
    learn : bool
        Whether θ and γ are learned; False keeps them fixed (as in Hopfield's hidden layer).
    sigma0 : float
        Standard deviation of the dequantisation noise that bounds γ ≤ 1/sigma0² where γ is fitted.
    """

    def __init__(
        self,
        size: int,
        mean: float = 0.0,
        precision: float = 1.0,
        learn: bool = True,
        sigma0: float = SIGMA_0,
    ) -> None:
        size = check_size(size, "the number of Gaussian units")
        if not precision > 0:
            raise DataError(f"The precision of Gaussian units must be positive, not {precision!r}.")
        config = {
            "size": size,
            "mean": float(mean),
            "precision": float(precision),
            "learn": learn,
            "sigma0": float(sigma0),
        }
        super().__init__(Real(size, sigma0), config)
        start = torch.full((size,), float(precision))
        self.bias = nn.Parameter(start * mean, requires_grad=learn)
        self.log_precision = nn.Parameter(start.log(), requires_grad=learn)

    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": s, "log_precision": -0.5 * s * s}

    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        precision = self.log_precision.exp()
        m = (f + self.bias) / precision
        return {"bias": m, "log_precision": -0.5 * (m * m + 1 / precision)}

    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        x = f + self.bias
        half_log = 0.5 * (math.log(2 * math.pi) - self.log_precision)
        return x * x / (2 * self.log_precision.exp()) + half_log

    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        return kernels.gaussian(f, self.bias.detach(), self.log_precision.detach().exp(), generator)
