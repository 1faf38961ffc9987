"""Mixed layers: several families side by side, for tables and for pixels with labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from gibbsian.errors import DataError
from gibbsian.units.base import Domain, Statistics, Units, members, select


class Product(Domain):
    """Domains side by side."""

    def __init__(self, parts: Sequence[Domain]) -> None:
        self.parts = list(parts)
        self.size = sum(p.size for p in parts)

    def check(self, x: Float[Tensor, "rows n"]) -> None:
        first = 0
        for part in self.parts:
            try:
                part.check(x[:, first : first + part.size])
            except DataError as error:
                raise DataError(f"Columns {first} to {first + part.size - 1}: {error}") from None
            first += part.size

    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        return torch.cat([p.noise(chains, generator) for p in self.parts], dim=-1)

    def blocks(self) -> list[Tensor | None]:
        return [b for p in self.parts for b in p.blocks()]

    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        return {
            f"members.{i}.{k}": t
            for i, p in enumerate(self.parts)
            for k, t in p.natural(select(mean, f"members.{i}."), rows).items()
        }


class Mixed(Units):
    """Families side by side in one layer: e and Γ add up, states are concatenated.

    Parameters
    ----------
    members : sequence of Units
        The families, in the order of their columns.
    """

    def __init__(self, members: Sequence[Units]) -> None:
        if not members:
            raise DataError("A mixed layer needs at least one member.")
        config: dict[str, Any] = {
            "members": [{"kind": type(m).__name__, **m.config} for m in members]
        }
        super().__init__(Product([m.domain for m in members]), config)
        self.members = nn.ModuleList(members)
        self._sizes = [m.size for m in members]

    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        return self._gather(s, lambda m, x: m.statistics(x))

    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        return self._gather(f, lambda m, x: m.conditional(x))

    def _gather(self, x: Tensor, part: Callable[[Any, Tensor], Statistics]) -> Statistics:
        return {
            f"members.{i}.{k}": t
            for i, (m, piece) in enumerate(self._split(x))
            for k, t in part(m, piece).items()
        }

    def _split(self, x: Tensor) -> list[tuple[Any, Tensor]]:
        return list(zip(self.members, x.split(self._sizes, dim=-1), strict=True))

    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return torch.cat([m.log_partition(x) for m, x in self._split(f)], dim=-1)

    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        return torch.cat([m.sample(x, generator) for m, x in self._split(f)], dim=-1)

    def doubled(self) -> Units | None:
        parts = [m.doubled() for m in members(self)]
        whole = [p for p in parts if p is not None]
        return Mixed(whole) if len(whole) == len(parts) else None
