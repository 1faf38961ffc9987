"""Two-valued units: Bernoulli {0, 1} and Spin {−1, +1}."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gibbsian import kernels
from gibbsian.errors import DataError
from gibbsian.units.base import Domain, Statistics, Units, check_size
from gibbsian.units.binomial import Binomial


class Binary(Domain):
    """Bits 0 and 1; rates between them are accepted as data, since a mean of bits is one."""

    transform = "auto"
    rates = True

    def __init__(self, size: int) -> None:
        self.size = size

    def check(self, x: Float[Tensor, "rows n"]) -> None:
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise DataError(
                f"Bernoulli units take values from 0 to 1, and the data run from {low:g} to "
                f"{high:g}; use the transform 'scale' or 'threshold', or other units."
            )

    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        return _bits(chains, self.size, generator)

    def blocks(self) -> list[Tensor | None]:
        return [torch.tensor([[0.0], [1.0]])] * self.size

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Return bias = logit((rows · mean + ½)/(rows + 1))."""
        return {"bias": torch.logit((rows * mean["bias"].double() + 0.5) / (rows + 1))}


class Signs(Domain):
    """Spins −1 and +1."""

    def __init__(self, size: int) -> None:
        self.size = size

    def check(self, x: Float[Tensor, "rows n"]) -> None:
        if bool((x.abs() != 1).any()):
            bad = float(x[x.abs() != 1][0])
            raise DataError(
                f"Spin units take the values −1 and +1, and the data hold {bad:g}; "
                "use the transforms 'threshold' and 'spin', or other units."
            )

    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        return _bits(chains, self.size, generator).mul_(2).sub_(1)

    def blocks(self) -> list[Tensor | None]:
        return [torch.tensor([[-1.0], [1.0]])] * self.size

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Return bias = artanh(rows · mean/(rows + 1))."""
        return {"bias": torch.atanh(mean["bias"].double() * rows / (rows + 1))}


def _bits(chains: int, size: int, generator: Generator | None) -> Tensor:
    """Draw uniform bits, 0 or 1."""
    device = torch.device("cpu") if generator is None else generator.device
    bits = torch.randint(0, 2, (chains, size), generator=generator, device=device)
    return bits.to(torch.get_default_dtype())


class Bernoulli(Units):
    """Bits s ∈ {0, 1} with e(s) = −b·s.

    Γ(f) = Σ softplus(b + f), E[s | f] = σ(b + f).

    Parameters
    ----------
    size : int
        Number of units.
    """

    gain = staticmethod(kernels.bernoulli_gain)
    idle_bias = -80.0
    sweeps = staticmethod(kernels.bernoulli_sweeps)

    def __init__(self, size: int) -> None:
        size = check_size(size, "the number of Bernoulli units")
        super().__init__(Binary(size), {"size": size})
        self.bias = nn.Parameter(torch.zeros(size))

    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": s}

    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": (f + self.bias).sigmoid_()}

    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        # softplus of PyTorch turns linear above a threshold of 20, where its error is 2e-9.
        return F.softplus(f + self.bias)

    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        return kernels.bernoulli(f, self.bias.detach(), generator)

    def doubled(self) -> Units:
        return Binomial(self.size, 2)


class Spin(Units):
    """Spins s ∈ {−1, +1} with e(s) = −b·s.

    Γ(f) = Σ log 2cosh(b + f), E[s | f] = tanh(b + f).

    Parameters
    ----------
    size : int
        Number of units.
    """

    gain = staticmethod(kernels.spin_gain)

    def __init__(self, size: int) -> None:
        size = check_size(size, "the number of Spin units")
        super().__init__(Signs(size), {"size": size})
        self.bias = nn.Parameter(torch.zeros(size))

    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": s}

    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": (f + self.bias).tanh_()}

    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        x = f + self.bias
        return F.softplus(2 * x) - x

    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        return kernels.spin(f, self.bias.detach(), generator)
