"""A directed layer: units whose distribution hangs on the state of one other layer, and not the reverse."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gibbsian.connections import Connection
from gibbsian.errors import GibbsianError
from gibbsian.moments import Moments, Rows, shares
from gibbsian.units import base as unit
from gibbsian.units.base import Units


class Directed(nn.Module):
    """Units s given a state x of another layer: p(s | x) = exp(f·s − e(s) − Γ(f)), f = c x.

    As a module it returns E[s | x], so recognition layers stand in an `nn.Sequential` as they are.

    Parameters
    ----------
    units : Units
        The layer that is described.
    connection : Connection
        Joins it to the other layer.
    upwards : bool
        Whether `units` are the connection's upper side: a recognition layer. Otherwise a generative one.

    Raises
    ------
    GibbsianError
        If the sizes do not fit.
    """

    def __init__(self, units: Units, connection: Connection, upwards: bool) -> None:
        super().__init__()
        side = connection.upper if upwards else connection.lower
        if side != units.size:
            raise GibbsianError(
                f"A directed layer of {units.size} units needs a connection that has as many on that "
                f"side, not {side}."
            )
        self.units, self.connection, self.upwards = units, connection, upwards

    @property
    def source(self) -> int:
        """Size of the layer that this one hangs on."""
        return self.connection.lower if self.upwards else self.connection.upper

    def field(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """Return the field on the units from the state of the other layer."""
        return self.connection.up(x) if self.upwards else self.connection.down(x)

    def forward(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        """Return E[s | x]."""
        return unit.mean(self.units, self.field(x))

    def sample(
        self, x: Float[Tensor, "*batch m"], generator: Generator | None
    ) -> Float[Tensor, "*batch n"]:
        """Draw s ~ p(s | x)."""
        return self.units.sample(self.field(x), generator)

    def log_probability(
        self, s: Float[Tensor, "*batch n"], x: Float[Tensor, "*batch m"]
    ) -> Float[Tensor, "*batch"]:
        """Return log p(s | x) in nats, summed over columns in float64."""
        f = self.field(x)
        terms = f * s - unit.energy_terms(self.units, s) - self.units.log_partition(f)
        return terms.sum(dim=-1, dtype=unit.accumulator(f))

    @torch.no_grad()
    def gradient(self, s: Float[Tensor, "batch n"], x: Float[Tensor, "batch m"]) -> Moments:
        """Return the gradient of −⟨log p(s | x)⟩ by parameter: the delta rule.

        ∂/∂η_k = ⟨E[T_k | x] − T_k(s)⟩, times η_k for a parameter log η_k; ∂/∂W = ⟨x (E[s | x] − s)ᵀ⟩.
        """
        expected, found = self.units.conditional(self.field(x)), self.units.statistics(s)
        out: dict[str, Tensor | Rows] = {}
        for name, p in self.units.named_parameters():
            if p.requires_grad:
                g = (expected[name] - found[name]).mean(dim=0)
                out[f"units.{name}"] = g * p.exp() if unit.is_log(name) else g
        error = unit.state_mean(self.units, expected) - s
        low, high = (x, error) if self.upwards else (error, x)
        out["connection.weight"] = Rows(self.connection, low, high, shares(len(s), None, s))
        return Moments(out)
