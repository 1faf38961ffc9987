"""The dense connection: every lower unit with every upper unit."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gibbsian.connections.base import Connection


class Dense(Connection):
    """All-to-all couplings: up(a) = a W, down(b) = b Wᵀ, statistics ⟨aᵀ b⟩.

    Parameters
    ----------
    lower, upper : int
        Sizes of the two layers; the weight has shape (lower, upper).
    """

    weight: nn.Parameter
    is_matrix = True

    def __init__(self, lower: int, upper: int) -> None:
        super().__init__()
        self.lower, self.upper = lower, upper
        self.weight = nn.Parameter(torch.zeros(lower, upper))

    def up(
        self, a: Float[Tensor, "*batch n"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch m"]:
        """Return a W."""
        return a @ (self.weight if weight is None else weight)

    def down(
        self, b: Float[Tensor, "*batch m"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch n"]:
        """Return b Wᵀ."""
        return b @ (self.weight if weight is None else weight).T

    def statistics(
        self,
        a: Float[Tensor, "batch n"],
        b: Float[Tensor, "batch m"],
        weights: Float[Tensor, " batch"] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return Σ_r w_r a_rᵀ b_r, with w_r = 1/batch unless given."""
        w = 1 / a.shape[0] if weights is None else weights[:, None]
        # The narrower side is cheaper to scale.
        a, b = (a * w, b) if self.lower < self.upper else (a, b * w)
        return torch.mm(a.T, b, out=out)

    def add_statistics(
        self, p: Tensor, a: Float[Tensor, "batch n"], b: Float[Tensor, "batch m"],
        weights: Float[Tensor, " batch"], scale: float,
    ) -> None:  # fmt: skip
        """Add the statistics, times a number, within the product that makes them."""
        torch.addmm(p, a.T, b * weights[:, None], alpha=scale, out=p)
