"""Levels of a ladder: machines of one architecture, from one that is sampled exactly to the target."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.machine import BoltzmannMachine, Clamps, State
from gibbsian.path import BaseRatePath
from gibbsian.samplers.annealed import anneal
from gibbsian.samplers.gibbs import draw

# Fields on the layers of one parity, one row for each row of the states.
Fields = dict[int, Tensor]


class Levels(ABC):
    """Machines M_0 … M_K, and what moves rows of states that stand at all of them.

    Rows of states are tensors (levels · chains, n), one a layer, level by level. M_0 has no couplings, so a
    draw at its level is exact.

    Attributes
    ----------
    target : BoltzmannMachine
        M_K.
    size : int
        K + 1.
    """

    target: BoltzmannMachine
    size: int

    @abstractmethod
    def machine(self, k: int) -> BoltzmannMachine:
        """Return M_k, which may be an object that moves with the next call."""

    @abstractmethod
    def start(self, chains: int, generator: Generator | None) -> State:
        """Draw exact samples of M_0."""

    @abstractmethod
    def log_z0(self) -> float:
        """Return log Z of M_0, exactly."""

    @abstractmethod
    def fields(self, parity: int, rows: Sequence[Tensor]) -> Fields:
        """Return fields on the layers of one parity for all rows, as `draw` and `compare` take them."""

    @abstractmethod
    def draw(
        self, rows: list[Tensor], fields: Mapping[int, Tensor], generator: Generator | None,
        clamps: Clamps | None = None,
    ) -> None:  # fmt: skip
        """Draw layers at all levels in place of the old ones, given the fields on them."""

    @abstractmethod
    def compare(
        self, pairs: Sequence[int], rows: Sequence[Tensor], fields: Mapping[int, Tensor]
    ) -> tuple[Float[Tensor, "pairs two chains"], Mapping[int, Tensor]]:
        """Compare neighbours i and i + 1 for each i of `pairs`, no two of which share a level.

        Returns F_i − F_{i+1} in nats at the states of either level, the odd layers summed out, and the fields
        on the odd layers that each row would have at its neighbour's level.
        """

    def climb(
        self,
        chains: int,
        generator: Generator | None,
        clamps: Clamps | None = None,
        sweeps: int = 1,
    ) -> list[State]:
        """Carry exact samples of M_0 up, `sweeps` Gibbs sweeps a level; return those of all but the top."""
        layers, found = list(self.start(chains, generator)), []
        for i, clamp in (clamps or {}).items():
            layers[i] = clamp.apply(layers[i])
        for k in range(self.size - 1):
            for _ in range(sweeps if k else 0):
                for parity in (1, 0):
                    draw(self.machine(k), layers, parity, generator, clamps)
            found.append(tuple(layers))
        return found


class PathLevels(Levels):
    """Levels at the values `betas` of a path; the fields of all are the target's, which scale.

    Parameters
    ----------
    path : BaseRatePath
    betas : sequence of float
        From 0 to 1, rising.
    """

    def __init__(self, path: BaseRatePath, betas: Sequence[float]) -> None:
        self.path, self.betas = path, list(betas)
        self.target, self.size = path.target, len(self.betas)

    def machine(self, k: int) -> BoltzmannMachine:
        """Return the machine of level k: one object, which moves with each call."""
        return self.path.at(self.betas[k])

    def start(self, chains: int, generator: Generator | None) -> State:
        """Draw exact samples of the path's start."""
        return self.path.draw(chains, generator)

    def log_z0(self) -> float:
        """Return log Z of the path's start."""
        return self.path.log_z0()

    def fields(self, parity: int, rows: Sequence[Tensor]) -> Fields:
        """Return the target's fields."""
        return self.path.fields(parity, rows)

    def draw(
        self, rows: list[Tensor], fields: Mapping[int, Tensor], generator: Generator | None,
        clamps: Clamps | None = None,
    ) -> None:  # fmt: skip
        """Draw layers at all levels in place of the old ones, given the target's fields on them."""
        path, betas = self.path, self.betas
        for i, f in fields.items():
            parts, change = f.unflatten(0, (self.size, -1)), path.shift(i)
            if change is None:
                pairs = zip(betas, parts, strict=True)
                drawn = torch.stack(
                    [path.at(b).layers[i].sample(b * p, generator) for b, p in pairs]
                )
            else:
                at = torch.tensor(betas, dtype=change.dtype, device=change.device)[:, None]
                moved = torch.addcmul(((1 - at) * change)[:, None], at[:, None], parts)
                drawn = path.target.layers[i].sample(moved, generator)
            if clamps and i in clamps:
                drawn = clamps[i].apply(drawn)
            rows[i] = drawn.flatten(0, 1)

    def compare(
        self, pairs: Sequence[int], rows: Sequence[Tensor], fields: Mapping[int, Tensor]
    ) -> tuple[Float[Tensor, "pairs two chains"], Mapping[int, Tensor]]:
        """Compare neighbours; the target's fields are those of a row at any level."""
        chains, found = len(rows[0]) // self.size, []
        for i in pairs:
            part = slice(i * chains, (i + 2) * chains)
            known = {k: f[part] for k, f in fields.items()}
            low, high = self.betas[i], self.betas[i + 1]
            gain = self.path.gain([s[part] for s in rows], known, low, high)
            found.append(gain.view(2, chains))
        return torch.stack(found), fields

    def climb(
        self,
        chains: int,
        generator: Generator | None,
        clamps: Clamps | None = None,
        sweeps: int = 1,
    ) -> list[State]:
        """Anneal along the path."""
        found: list[State] = []
        anneal(self.path, self.betas[:-1], chains, generator, clamps, sweeps=sweeps,
               visit=lambda k, layers, fields: found.append(tuple(layers)))  # fmt: skip
        return found
