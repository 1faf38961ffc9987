"""Parallel tempering: chains at many temperatures that trade places."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.path import levels_or_number
from gibbsian.samplers.base import ChainState
from gibbsian.samplers.ladder import place
from gibbsian.samplers.levels import PathLevels
from gibbsian.samplers.origin import Origin
from gibbsian.samplers.replica import ReplicaExchange


class Tempering(ReplicaExchange):
    """Parallel tempering (Swendsen & Wang 1986; for RBMs Desjardins et al. 2010).

    A ladder of levels 0 = β_0 < … < β_K = 1 stands on the base-rate path from a reference machine (W = 0) to
    the machine: see `gibbsian.samplers.replica.ReplicaExchange` for the step. The top level crosses between
    modes that Gibbs never leaves. The fields of all levels come from the same matrix product, and the swaps
    need no more: a step costs as much as Gibbs on K + 1 times the chains.

    Parameters
    ----------
    reference : BoltzmannMachine or Tensor (rows, visible)
        A machine with W = 0 (`gibbsian.path.reference`), or data rows that the visible units of one are
        fitted to; its other units are then the machine's own.
    levels : int or sequence of float, optional
        Values of β that rise from exactly 0 to exactly 1; or how many, placed by a pilot run for equal
        acceptance at each `init`. Unless given, as many as an acceptance of about 0.3 needs. Give values for
        training, where the machine of the pilot has learned nothing yet.
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
        betas = self.betas or place(path, self.levels, generator)
        return PathLevels(path, betas), {"betas": torch.tensor(betas, dtype=torch.float64)}

    def levels_at(self, machine: BoltzmannMachine, state: ChainState) -> PathLevels:
        """Return the levels whose β the state has kept."""
        return PathLevels(self._origin.path(machine), state.extra["betas"].tolist())
