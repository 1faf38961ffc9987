"""Parallel tempering: chains at many temperatures that trade places."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath, levels_or_number
from gibbsian.samplers.base import ChainState, Info, run
from gibbsian.samplers.ladder import ACCEPTANCE, place, spread_of
from gibbsian.samplers.levels import PathLevels
from gibbsian.samplers.origin import Origin
from gibbsian.samplers.replica import ReplicaExchange

# Trials of placed levels: how many at most, their chains and steps, and the most levels there may be after.
_TRIALS, _CHAINS, _STEPS, _MOST = 3, 50, 50, 100


class Tempering(ReplicaExchange):
    """Parallel tempering (Swendsen & Wang 1986; for RBMs Desjardins et al. 2010).

    A ladder of levels 0 = β_0 < … < β_K = 1 stands on the base-rate path from a reference machine (W = 0) to
    the machine: see `gibbsian.samplers.replica.ReplicaExchange` for the step. The top level crosses between
    modes that Gibbs never leaves. The fields of all levels come from the same matrix product, and the swaps
    need no more: a step costs as much as Gibbs on K + 1 times the chains.

    A mode that has next to no probability at some β below 1 comes up the ladder as seldom, whatever the
    acceptance of swaps and the round trips say: large couplings of uneven size do that (bars and stripes,
    fitted without a penalty: one pattern's share falls from 1/14 to 1/5000, and chains take 30 times as long
    to agree as with an L2 penalty of 1e-4). `certify` shows it; see `TrajectoryTempering` then.

    Parameters
    ----------
    reference : BoltzmannMachine or Tensor (rows, visible)
        A machine with W = 0 (`gibbsian.path.reference`), or data rows that the visible units of one are
        fitted to; its other units are then the machine's own, in the field of the data's mean.
    levels : int or sequence of float, optional
        Values of β that rise from exactly 0 to exactly 1; or how many, placed by a pilot run for equal
        acceptance at each `init`. Unless given, as many as an acceptance of about 0.3 needs; then the ladder
        is tried, and levels are added where swaps are rare. Give values for training, where the machine of
        the pilot has learned nothing yet.
    sweeps : int
        Gibbs sweeps at each level in a step.

    Raises
    ------
    GibbsianError
        If a setting is impossible; and, of `init` and `step`, if the reference does not fit the machine.
    """

    def __init__(
        self,
        reference: BoltzmannMachine | Float[Tensor, "rows n"] | Any,
        levels: int | Sequence[float] | None = None,
        sweeps: int = 1,
    ) -> None:
        super().__init__(sweeps)
        self.levels, self.betas = levels_or_number(levels, "tempering")
        self._origin = Origin(reference, "tempering")

    def first(
        self, machine: BoltzmannMachine, generator: Generator | None
    ) -> tuple[PathLevels, Mapping[str, Tensor]]:
        """Return the levels that were given, or place them."""
        path = self._origin.path(machine)
        betas = self.betas or self.placed(path, generator)
        return PathLevels(path, betas), {"betas": torch.tensor(betas, dtype=torch.float64)}

    def levels_at(self, machine: BoltzmannMachine, state: ChainState) -> PathLevels:
        """Return the levels whose β the state has kept."""
        return PathLevels(self._origin.path(machine), state.extra["betas"].tolist())

    def placed(self, path: BaseRatePath, generator: Generator | None) -> list[float]:
        """Return levels for the path: by the pilot run, and where their number is open, by trials as well.

        The pilot's chains pass each β once. Where they mix slowly they know too little of how far apart
        neighbours are, and swaps will be rare there.
        """
        betas = place(path, self.levels, generator)
        for _ in range(_TRIALS if self.levels is None else 0):
            closer = _closer(betas, _tried(path, betas, generator))
            if len(closer) == len(betas) or len(closer) > _MOST:
                break
            betas = closer
        return betas


def _tried(path: BaseRatePath, betas: list[float], generator: Generator | None) -> list[float]:
    """Return the share of swaps that each rung accepted, in the later half of a short run."""
    ladder = Tempering(path.start, betas)
    state = ladder.init(path.target, path.draw(_CHAINS, generator)[0], generator)
    accepted = torch.zeros(len(betas) - 1, dtype=torch.float64)

    def visit(i: int, now: ChainState, info: Info) -> None:
        if i > _STEPS // 2:
            accepted.add_(info.diagnostics["acceptance"].to(accepted))

    run(ladder, path.target, state, _STEPS, generator, visit=visit)
    return (accepted / (_STEPS - _STEPS // 2)).tolist()


def _closer(betas: Sequence[float], accepted: Sequence[float]) -> list[float]:
    """Cut each rung that accepted less than half of what it should into even pieces."""
    found = [betas[0]]
    for (low, high), a in zip(pairwise(betas), accepted, strict=True):
        pieces = 1
        if a < ACCEPTANCE / 2:
            pieces = math.ceil(spread_of(max(a, 1e-3)) / spread_of(ACCEPTANCE))
        found += [low + (high - low) * k / pieces for k in range(1, pieces)] + [high]
    return found
