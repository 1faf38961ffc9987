"""Samplers on a ladder within training: levels that follow the machine as it learns."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import TrainingError
from gibbsian.estimators.chains import check_memory
from gibbsian.estimators.renewed import Renewed
from gibbsian.machine import BoltzmannMachine, Clamps
from gibbsian.path import BaseRatePath
from gibbsian.samplers import ChainState, Sampler, Tempering
from gibbsian.samplers.ladder import place


class MovingLadder(Renewed):
    """Tempering, or tempered transitions, on levels that are placed anew while the machine learns.

    Levels stand where a pilot run on the machine finds equal acceptance (about 0.3 if their number is left
    open), a pilot being about as dear as 200 steps of Gibbs: see `gibbsian.estimators.renewed` for when. Each
    new level of tempering takes over the states of the old level next to it in β.

    Parameters
    ----------
    rows : Tensor (rows, visible)
        Data that the reference machine is fitted to.
    levels : int, optional
        How many; as many as the sampler needs unless given.
    make : callable, optional
        Makes the sampler of rows and levels; `Tempering` unless given.
    **options
        What it is made with besides, such as sweeps.
    """

    def __init__(
        self, rows: Float[Tensor, "rows n"], levels: int | None = None,
        make: Callable[..., Sampler] | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__((make or _Untried)(rows, levels, **options))

    def renewed(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None,
    ) -> ChainState:  # fmt: skip
        """Place levels on the machine as it is now; they start from the states of the old ones."""
        made = self.inner.init(machine, state.layers[0], generator, clamps)
        old, new = state.extra["betas"], made.extra["betas"]
        kept = [k for k in state.extra if k.startswith("lower_")]
        nearest = (new[:-1, None] - old[:-1]).abs().argmin(dim=1).to(state.layers[0].device)
        lower = {
            k: state.extra[k].unflatten(0, (len(old) - 1, -1))[nearest].flatten(0, 1) for k in kept
        }
        return ChainState(state.layers, {**made.extra, **lower})


class _Untried(Tempering):
    """Tempering whose levels are placed by the pilot alone: trials would cost as much as many updates."""

    def placed(self, path: BaseRatePath, generator: Generator | None) -> list[float]:
        return place(path, self.levels, generator)


def check_levels(levels: int | None) -> int | None:
    """Return the number of levels, None where it is left open, else raise a `TrainingError`."""
    if levels is None:
        return None
    return whole(levels, "The number of levels", 2, TrainingError)


def check_levels_memory(machine: BoltzmannMachine, chains: int, levels: int) -> None:
    """Refuse chains whose levels exceed the free memory."""
    check_memory(
        machine, chains * levels, f"{chains:,} chains at {levels} levels of tempering",
        "ask for fewer chains or levels",
    )  # fmt: skip
