"""Rectified units: a Gaussian truncated to s ≥ 0, exactly."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gibbsian import kernels
from gibbsian.errors import DataError
from gibbsian.units.base import (
    Domain,
    Statistics,
    Units,
    accumulator,
    check_size,
    is_differentiated,
)
from gibbsian.units.gaussian import SIGMA_0, precision_limits

_NEWTON_STEPS = 60


class NonNegative(Domain):
    """Real numbers from 0 upwards."""

    one_sided = True

    def __init__(self, size: int, sigma0: float = SIGMA_0) -> None:
        if not sigma0 >= 0:
            raise DataError(f"sigma0 must be 0 or a positive number, and {sigma0!r} is not.")
        self.size, self.sigma0 = size, float(sigma0)
        self.limits = precision_limits(self.sigma0)

    def check(self, x: Float[Tensor, "rows n"]) -> None:
        if float(x.min()) < 0:
            raise DataError(
                f"ReLU units take values from 0 upwards, and the data go down to "
                f"{float(x.min()):g}; use the transform 'scale', or Gaussian units."
            )

    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        device = torch.device("cpu") if generator is None else generator.device
        return torch.randn(chains, self.size, generator=generator, device=device).abs_()

    def blocks(self) -> list[Tensor | None]:
        return [None] * self.size

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Match the mean and the second moment (widened by σ₀²) of a truncated Gaussian.

        With z = θ/√γ, the ratio E[s²]/E[s]² of the family depends on z alone and falls from 2
        (exponential) to 1 as z grows, so z is found by bisection and γ from the mean.
        """
        m = mean["bias"].double()
        second = -2 * mean["log_precision"].double() + self.sigma0**2
        if bool((second <= 0).any()):
            raise DataError("A column is constantly 0, and sigma0 = 0 gives it no width; drop it.")
        # Mean at least σ₀/10 and a ratio just below 2 keep the solution inside the family.
        m = m.clamp(min=self.sigma0 / 10 or torch.finfo(torch.float64).tiny)
        ratio = (second / m**2).clamp(1 + 1e-8, 2 - 1e-3)
        low, high = torch.full_like(m, -50.0), torch.full_like(m, 1e4)
        for _ in range(_NEWTON_STEPS):
            z = (low + high) / 2
            first = _excess(z)
            above = (1 + z * first) / first**2 > ratio
            low, high = torch.where(above, z, low), torch.where(above, high, z)
        z = (low + high) / 2
        root = _excess(z) / m
        return {"bias": z * root, "log_precision": 2 * root.log()}


def _excess(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return E[x | x ≥ 0] for x ~ N(z, 1): z + φ(z)/Φ(z), without cancellation far below zero."""
    hazard = (2 / torch.pi) ** 0.5 / torch.special.erfcx(-z.clamp(max=20.0) / 2**0.5)
    a = -z.clamp(max=-1.0)
    tail = (1 - 2 / a**2 + 10 / a**4 - 74 / a**6) / a
    return torch.where(z < -200, tail, z + torch.where(z < 20, hazard, torch.zeros_like(z)))


class ReLU(Units):
    """Values s ≥ 0 with e(s) = γ s²/2 − θ s: s | f is N((θ + f)/γ, 1/γ) conditioned on s ≥ 0.

    With x = θ + f and z = x/√γ: Γ(f) = Σ z²/2 + ½ log(2π/γ) + log Φ(z),
    E[s | f] = (z + φ(z)/Φ(z))/√γ. Nair & Hinton's (2010) noisy rectifier approximates infinitely
    many tied Bernoulli units instead; this is the exact conditional of the stated energy.

    Parameters
    ----------
    size : int
        Number of units.
    precision : float
        γ at the start.
    learn : bool
        Whether γ is learned too; θ always is.
    sigma0 : float
        Standard deviation that bounds γ where it is fitted to data.
    """

    def __init__(
        self, size: int, precision: float = 1.0, learn: bool = False, sigma0: float = SIGMA_0
    ) -> None:
        size = check_size(size, "the number of ReLU units")
        if not precision > 0:
            raise DataError(f"The precision of ReLU units must be positive, not {precision!r}.")
        config = {
            "size": size, "precision": float(precision), "learn": learn, "sigma0": float(sigma0),
        }  # fmt: skip
        super().__init__(NonNegative(size, sigma0), config)
        self.bias = nn.Parameter(torch.zeros(size))
        start = torch.full((size,), float(precision)).log()
        self.log_precision = nn.Parameter(start, requires_grad=learn)

    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": s, "log_precision": -0.5 * s * s}

    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        if not is_differentiated(self, f):
            found = kernels.truncated_moments(f.detach(), self.bias.detach(), self._precision())
            if found is not None:
                return {"bias": found[0], "log_precision": found[1].mul_(-0.5)}
        z, root = self._standard(f)
        first = _excess(z)
        # Far below zero 1 + z·first cancels; 2/z² is its limit.
        second = torch.where(z < -1e4, 2 / z**2, 1 + z * first)
        return {
            "bias": (first / root).to(f.dtype),
            "log_precision": (-0.5 * second / root**2).to(f.dtype),
        }

    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        if not is_differentiated(self, f):
            found = kernels.truncated_log_partition(
                f.detach(), self.bias.detach(), self._precision()
            )
            if found is not None:
                return found
        z, root = self._standard(f)
        # For z < 0 the square and log Φ cancel: their sum is log(erfcx(−z/√2)/2).
        below = torch.log(torch.special.erfcx(-z.clamp(max=0.0) / 2**0.5) / 2)
        above = z.clamp(min=0.0) ** 2 / 2 + torch.special.log_ndtr(z.clamp(min=0.0))
        width = 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=z.dtype)) - root.log()
        return (torch.where(z < 0, below, above) + width).to(f.dtype)

    def _standard(self, f: Tensor) -> tuple[Tensor, Tensor]:
        wide = accumulator(f)
        root = (0.5 * self.log_precision.to(wide)).exp()
        return (f + self.bias).to(wide) / root, root

    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        return kernels.truncated_gaussian(f, self.bias.detach(), self._precision(), generator)

    def _precision(self) -> Float[Tensor, " n"]:
        return self.log_precision.detach().exp()
