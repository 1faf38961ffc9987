"""What a connection is: a linear map up, its transpose down, and its sufficient statistics."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Connection(nn.Module, ABC):
    """A bilinear coupling ⟨a, c b⟩ of a lower layer a and an upper layer b, linear in `weight`.

    ⟨up(a), b⟩ = ⟨a, down(b)⟩ for all a and b.

    Attributes
    ----------
    lower, upper : int
        Sizes of the two layers.
    weight : Tensor
        The learned couplings.
    is_matrix : bool
        Whether up(a) is the plain product a @ weight.
    """

    weight: Tensor
    lower: int
    upper: int
    is_matrix = False

    @abstractmethod
    def up(
        self, a: Float[Tensor, "*batch n"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch m"]:
        """Return the field on the upper layer; `weight` stands in for the couplings if given."""

    @abstractmethod
    def down(
        self, b: Float[Tensor, "*batch m"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch n"]:
        """Return the field on the lower layer; `weight` stands in for the couplings if given."""

    @abstractmethod
    def statistics(
        self,
        a: Float[Tensor, "batch n"],
        b: Float[Tensor, "batch m"],
        weights: Float[Tensor, " batch"] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return Σ_r w_r ∂⟨a_r, c b_r⟩/∂weight over the batch, written into `out` if given.

        The weights are 1/batch unless given, and may have any sign.
        """

    def add_statistics(
        self, p: Tensor, a: Float[Tensor, "batch n"], b: Float[Tensor, "batch m"],
        weights: Float[Tensor, " batch"], scale: float,
    ) -> None:  # fmt: skip
        """Add the statistics, times a number, to a tensor like `weight`, in place."""
        p.add_(self.statistics(a, b, weights), alpha=scale)


class Scaled(Connection):
    """A connection with all its couplings multiplied by a fixed factor, sharing their storage.

    It is how a path between machines weakens couplings without copying them.
    """

    def __init__(self, connection: Connection, factor: float) -> None:
        super().__init__()
        self.connection, self.factor = connection, factor
        self.lower, self.upper = connection.lower, connection.upper

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The scaled couplings."""
        return self.factor * self.connection.weight

    def up(
        self, a: Float[Tensor, "*batch n"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch m"]:
        """Return factor times the connection's field."""
        return self.connection.up(a, weight).mul(self.factor if weight is None else 1.0)

    def down(
        self, b: Float[Tensor, "*batch m"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch n"]:
        """Return factor times the connection's field."""
        return self.connection.down(b, weight).mul(self.factor if weight is None else 1.0)

    def statistics(
        self,
        a: Float[Tensor, "batch n"],
        b: Float[Tensor, "batch m"],
        weights: Float[Tensor, " batch"] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return the statistics of the scaled couplings, which do not depend on the factor."""
        return self.connection.statistics(a, b, weights, out)
