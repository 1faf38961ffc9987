"""Parallel trajectory tempering: replica exchange whose levels are machines that a training passed."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamps, State
from gibbsian.path import BaseRatePath
from gibbsian.samplers.base import ChainState
from gibbsian.samplers.levels import Fields, Levels
from gibbsian.samplers.replica import ReplicaExchange
from gibbsian.trajectory import Trajectory, check_alike, same
from gibbsian.units import base as unit


class TrajectoryTempering(ReplicaExchange):
    """Parallel trajectory tempering (Béreux, Decelle, Furtlehner, Rosset & Seoane 2025).

    The levels are the machines of a trajectory, from the reference machine (W = 0), whose samples are
    redrawn exactly, to the machine that is sampled; its step is
    `gibbsian.samplers.replica.ReplicaExchange`'s. Its authors found modes to part little by little along
    training, where a fall of temperature may split them at once (a first-order transition).

    The machine that is sampled is the last level, one above the trajectory's last unless it is that one.
    Each level has its own matrix product, and swaps need one more a level.

    Clusters have to keep about their share of the probability all along the trajectory. Training whose chains
    do not cross lets it drift: within 4,000 updates of plain PCD on MNIST's digits 0 and 1 the odds of
    the ones went from 1 to e⁴⁰, back to e⁻¹⁷ and to e⁻⁷. Then chains of the rarer cluster neither come up the
    ladder nor leave its top, and such chains see no round trips. `gibbsian.estimators.PTT` kept the odds
    between e⁻¹ and e¹·⁵.

    Parameters
    ----------
    trajectory : Trajectory
        See `gibbsian.trajectory.load`, and `Trajectory.refined` for one whose machines stand too far apart.
    sweeps : int
        Gibbs sweeps k at each level in a step.

    Raises
    ------
    GibbsianError
        If a setting is impossible; and, of `init` and `step`, if the machine is of another architecture.
    """

    def __init__(self, trajectory: Trajectory | Any, sweeps: int = 1) -> None:
        super().__init__(sweeps)
        if not isinstance(trajectory, Trajectory):
            raise GibbsianError(
                "Trajectory tempering takes a trajectory such as gb.trajectory.load('runs/digits'), not "
                f"{type(trajectory).__name__}."
            )
        self.trajectory = trajectory
        self._known: tuple[BoltzmannMachine, ...] = ()

    def first(
        self, machine: BoltzmannMachine, generator: Generator | None
    ) -> tuple[Levels, Mapping[str, Tensor]]:
        """Return the machines of the trajectory, and the one that is sampled at the top."""
        check_alike(machine, self.trajectory.machines[0])
        lower = self._lower(machine)
        new = len(lower) == 1 or not same(machine, lower[-1])
        return TrajectoryLevels([*(lower if new else lower[:-1]), machine]), {}

    def levels_at(self, machine: BoltzmannMachine, state: ChainState) -> Levels:
        """Return as many machines as the chains began with, the one that is sampled at the top."""
        count = len(state.extra["replica"])
        return TrajectoryLevels([*self._lower(machine)[: count - 1], machine])

    def _lower(self, machine: BoltzmannMachine) -> tuple[BoltzmannMachine, ...]:
        """Return the trajectory's machines in the dtype and on the device of a machine."""
        like = next(machine.parameters())
        known = self._known or self.trajectory.machines
        mine = next(known[0].parameters())
        if (mine.dtype, mine.device) != (like.dtype, like.device):
            known = tuple(copy.deepcopy(m).to(like) for m in self.trajectory.machines)
        self._known = known
        return known


class TrajectoryLevels(Levels):
    """Levels that are machines of their own; the first has no couplings.

    Parameters
    ----------
    machines : sequence of BoltzmannMachine
        Two or more of one architecture.
    """

    def __init__(self, machines: Sequence[BoltzmannMachine]) -> None:
        self.machines = list(machines)
        self.target, self.size = self.machines[-1], len(self.machines)
        self._path = BaseRatePath(self.machines[0], self.machines[0])
        self._shifts = [self._shift(i) for i in range(len(self.target.layers))]

    def machine(self, k: int) -> BoltzmannMachine:
        """Return the machine of level k."""
        return self.machines[k]

    def start(self, chains: int, generator: Generator | None) -> State:
        """Draw exact samples of the first machine."""
        return self._path.draw(chains, generator)

    def log_z0(self) -> float:
        """Return log Z of the first machine."""
        return self._path.log_z0()

    def fields(self, parity: int, rows: Sequence[Tensor]) -> Fields:
        """Return the field of each row's own machine, in the dtype of the parameters."""
        return self._products(parity, rows, range(self.size))

    def _products(self, parity: int, rows: Sequence[Tensor], which: Sequence[int]) -> Fields:
        """Return the fields that machine ``which[k]`` makes of the k-th part of the rows."""
        full = next(self.target.parameters()).dtype  # products may be in a narrower one
        parts = [s.unflatten(0, (self.size, -1)) for s in rows]
        found = [
            self.machines[k].fields(parity, [p[place] for p in parts])
            for place, k in enumerate(which)
        ]
        return {i: torch.cat([f[i].to(full) for f in found]) for i in found[0]}

    def draw(
        self, rows: list[Tensor], fields: Mapping[int, Tensor], generator: Generator | None,
        clamps: Clamps | None = None,
    ) -> None:  # fmt: skip
        """Draw layers at all levels in place of the old ones, at once where only biases differ."""
        for i, f in fields.items():
            parts, change = f.unflatten(0, (self.size, -1)), self._shifts[i]
            if change is None:
                pairs = zip(self.machines, parts, strict=True)
                drawn = torch.stack([m.layers[i].sample(p, generator) for m, p in pairs])
            else:
                drawn = self.target.layers[i].sample(parts + change, generator)
            if clamps and i in clamps:
                drawn = clamps[i].apply(drawn)
            rows[i] = drawn.flatten(0, 1)

    def compare(
        self, pairs: Sequence[int], rows: Sequence[Tensor], fields: Mapping[int, Tensor]
    ) -> tuple[Float[Tensor, "pairs two chains"], Mapping[int, Tensor]]:
        """Compare neighbours: either machine's F at the states of both."""
        partner = list(range(self.size))
        for i in pairs:
            partner[i], partner[i + 1] = i + 1, i
        crossed = self._products(1, rows, partner)
        mine, theirs = (
            self._energies(rows, fields, range(self.size)),
            self._energies(rows, crossed, partner),
        )
        # F_i − F_{i+1} is own minus neighbour's below, and neighbour's minus own above.
        found = [torch.stack([mine[i] - theirs[i], theirs[i + 1] - mine[i + 1]]) for i in pairs]
        return torch.stack(found), crossed

    def _energies(
        self, rows: Sequence[Tensor], fields: Mapping[int, Tensor], which: Sequence[int]
    ) -> list[Float[Tensor, " chains"]]:
        """Return F of machine ``which[k]`` at the k-th part of the rows, the odd layers summed out."""
        states = [s.unflatten(0, (self.size, -1)) for s in rows]
        known = {i: f.unflatten(0, (self.size, -1)) for i, f in fields.items()}
        return [
            self.machines[k].marginal_energy(
                [s[place] for s in states], fields={i: f[place] for i, f in known.items()}
            )
            for place, k in enumerate(which)
        ]

    @torch.no_grad()
    def _shift(self, layer: int) -> Float[Tensor, "levels one n"] | None:
        """Return how much the biases of each level differ from the target's; None where other parameters do.

        A layer then is the target's in its field plus this.
        """
        target = unit.natural(self.target.layers[layer])
        bias = [k for k in target if k.rpartition(".")[2] == "bias"]
        found = []
        for machine in self.machines:
            here = unit.natural(machine.layers[layer])
            if any(not torch.equal(here[k], t) for k, t in target.items() if k not in bias):
                return None
            found.append(torch.cat([here[k] - target[k] for k in bias]))
        return torch.stack(found)[:, None]
