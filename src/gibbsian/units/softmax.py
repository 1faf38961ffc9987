"""Softmax units: blocks of one-of-K, also known as Potts or categorical units."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gibbsian import kernels
from gibbsian.errors import DataError
from gibbsian.units.base import Domain, Statistics, Units, check_size


class OneHot(Domain):
    """Blocks of K columns, exactly one of which is 1."""

    def __init__(self, groups: int, categories: int) -> None:
        self.groups, self.categories = groups, categories
        self.size = groups * categories

    def check(self, x: Float[Tensor, "rows n"]) -> None:
        blocks = x.unflatten(-1, (self.groups, self.categories))
        if bool(((x != 0) & (x != 1)).any()) or bool((blocks.sum(dim=-1) != 1).any()):
            raise DataError(
                f"Softmax units take blocks of {self.categories} columns with exactly one 1 in "
                "each, and some rows of the data are not so; use the transform 'one-hot'."
            )

    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        device = torch.device("cpu") if generator is None else generator.device
        flat = torch.zeros(chains, self.size, device=device)
        return kernels.softmax(flat, flat[0], self.categories, generator)

    def blocks(self) -> list[Tensor | None]:
        return [torch.eye(self.categories)] * self.groups

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Return log of the smoothed frequencies, centred in each block (the zero-sum gauge)."""
        p = (rows * mean["bias"].double() + 1 / self.categories) / (rows + 1)
        logs = p.log().unflatten(-1, (self.groups, self.categories))
        return {"bias": (logs - logs.mean(dim=-1, keepdim=True)).flatten(-2)}


class Softmax(Units):
    """Blocks of K columns with one 1 each, and e(s) = −b·s.

    Per block Γ(f) = log Σ_k exp(b_k + f_k), and E[s | f] is the softmax of b + f.

    Parameters
    ----------
    groups : int
        Number of blocks.
    categories : int
        Number K of values of each; a state has groups · K columns.
    """

    def __init__(self, groups: int, categories: int) -> None:
        groups = check_size(groups, "the number of Softmax blocks")
        categories = check_size(categories, "the number of categories")
        super().__init__(OneHot(groups, categories), {"groups": groups, "categories": categories})
        self.categories = categories
        self.bias = nn.Parameter(torch.zeros(groups * categories))

    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": s}

    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        return {"bias": torch.softmax(self._blocks(f), dim=-1).flatten(-2)}

    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        total = torch.logsumexp(self._blocks(f), dim=-1, keepdim=True)
        rest = total.new_zeros(()).expand(*total.shape[:-1], self.categories - 1)
        return torch.cat([total, rest], dim=-1).flatten(-2)

    def _blocks(self, f: Tensor) -> Tensor:
        return (f + self.bias).unflatten(-1, (-1, self.categories))

    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        return kernels.softmax(f, self.bias.detach(), self.categories, generator)
