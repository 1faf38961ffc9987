"""Binomial units: counts 0…trials, which are `trials` tied Bernoulli units added up."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gibbsian import kernels
from gibbsian.errors import DataError
from gibbsian.units.base import Domain, Statistics, Units, check_size


class Counts(Domain):
    """Whole numbers 0…trials."""

    def __init__(self, size: int, trials: int) -> None:
        self.size, self.trials = size, trials

    def check(self, x: Float[Tensor, "rows n"]) -> None:
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > self.trials or bool((x != x.round()).any()):
            raise DataError(
                f"Binomial units take whole numbers from 0 to {self.trials}, and the data run from "
                f"{low:g} to {high:g}, not all of them whole; count trials anew or use other units."
            )

    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        device = torch.device("cpu") if generator is None else generator.device
        flat = torch.zeros(chains, self.size, device=device)
        return kernels.binomial(flat, flat[0], self.trials, generator)

    def blocks(self) -> list[Tensor | None]:
        return [torch.arange(self.trials + 1.0)[:, None]] * self.size

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Return bias = logit of the smoothed rate (rows · mean/trials + ½)/(rows + 1)."""
        rate = mean["bias"].double() / self.trials
        return {"bias": torch.logit((rows * rate + 0.5) / (rows + 1))}


class Binomial(Units):
    """Counts s ∈ {0, …, n} with e(s) = −b·s − Σ log C(n, s).

    Γ(f) = n Σ softplus(b + f), E[s | f] = n σ(b + f). `Binomial(size, 2)` is the doubled layer of a
    deep Boltzmann machine's layer-wise training (Salakhutdinov & Hinton 2009).

    Parameters
    ----------
    size : int
        Number of units.
    trials : int
        The largest count n.
    """

    log_multiplicity: Tensor

    def __init__(self, size: int, trials: int = 2) -> None:
        size = check_size(size, "the number of Binomial units")
        trials = check_size(trials, "the number of trials of Binomial units")
        super().__init__(Counts(size, trials), {"size": size, "trials": trials})
        self.trials = trials
        self.bias = nn.Parameter(torch.zeros(size))
        # The base measure is a statistic with the fixed coefficient 1 = exp(0).
        self.register_buffer("log_multiplicity", torch.zeros(size))

    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": s, "log_multiplicity": self._log_choose(s)}

    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        x = f + self.bias
        log_p, log_q = F.logsigmoid(x), F.logsigmoid(-x)
        multiplicity = torch.zeros_like(x)
        for k in range(1, self.trials):
            choose = self._log_choose(torch.tensor(float(k), dtype=x.dtype, device=x.device))
            multiplicity += choose * torch.exp(choose + k * log_p + (self.trials - k) * log_q)
        return {"bias": self.trials * torch.sigmoid(x), "log_multiplicity": multiplicity}

    def _log_choose(self, s: Tensor) -> Tensor:
        n = torch.tensor(float(self.trials), dtype=s.dtype, device=s.device)
        return torch.lgamma(n + 1) - torch.lgamma(s + 1) - torch.lgamma(n - s + 1)

    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return self.trials * F.softplus(f + self.bias)

    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        return kernels.binomial(f, self.bias.detach(), self.trials, generator)

    def doubled(self) -> Units:
        return Binomial(self.size, 2 * self.trials)
