"""Tempering within training: a ladder whose levels follow the machine as it learns."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import TrainingError
from gibbsian.estimators.chains import check_memory
from gibbsian.machine import BoltzmannMachine, Clamps
from gibbsian.path import BaseRatePath
from gibbsian.samplers import ChainState, Info, Sampler, Tempering
from gibbsian.samplers.ladder import place

# Levels are placed anew after at least so many steps, and then after so large a share of the steps made.
_FIRST, _SHARE = 100, 0.1
# The entry of a chain state's `extra` that counts steps: all of them, and those since levels were placed.
_CLOCK = "clock"


class MovingLadder(Sampler):
    """Tempering on levels that are placed anew while the machine learns.

    Levels stand where a pilot run on the machine finds equal acceptance (about 0.3 if their number is left
    open). The first pilot sees a machine that has learned nothing, so others follow after 100 steps and then
    each time the number of steps has grown by a tenth: a hundred of them in 10⁶ steps, each about as dear as
    200 steps of Gibbs. Each new level takes over the states of the old level next to it in β.

    Parameters
    ----------
    rows : Tensor (rows, visible)
        Data that the reference machine is fitted to.
    levels : int, optional
        How many; as many as an acceptance of about 0.3 needs unless given.
    """

    draws_visible = False

    def __init__(self, rows: Float[Tensor, "rows n"], levels: int | None = None) -> None:
        self._tempering = _Untried(rows, levels)

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Place the levels, and the visible layer at the top."""
        made = self._tempering.init(machine, visible, generator, clamps)
        return ChainState(made.layers, {**made.extra, _CLOCK: torch.zeros(2, dtype=torch.long)})

    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Make a step of tempering, on new levels if it is time for them."""
        total, since = state.extra[_CLOCK].tolist()
        if since >= max(_FIRST, _SHARE * total):
            state, since = self._placed(machine, state, generator, clamps), 0
        after, info = self._tempering.step(machine, state, generator, clamps)
        clock = torch.tensor([total + 1, since + 1])
        return replace(after, extra={**after.extra, _CLOCK: clock}), info

    def _placed(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None,
    ) -> ChainState:  # fmt: skip
        """Place levels on the machine as it is now; they start from the states of the old ones."""
        made = self._tempering.init(machine, state.layers[0], generator, clamps)
        old, new = state.extra["betas"], made.extra["betas"]
        check_levels_memory(machine, len(state.layers[0]), len(new))
        nearest = (new[:-1, None] - old[:-1]).abs().argmin(dim=1).to(state.layers[0].device)
        lower = {
            k: t.unflatten(0, (len(old) - 1, -1))[nearest].flatten(0, 1)
            for k, t in state.extra.items() if k.startswith("lower_")
        }  # fmt: skip
        return ChainState(state.layers, {**made.extra, **lower})


class _Untried(Tempering):
    """Tempering whose levels are placed by the pilot alone: trials would cost as much as many updates."""

    def placed(self, path: BaseRatePath, generator: Generator | None) -> list[float]:
        return place(path, self.levels, generator)


def check_levels(levels: int | None) -> int | None:
    """Return the number of levels, None where it is left open, else raise a `TrainingError`."""
    if levels is None:
        return None
    return whole(levels, "The number of levels of tempering", 2, TrainingError)


def check_levels_memory(machine: BoltzmannMachine, chains: int, levels: int) -> None:
    """Refuse chains whose levels exceed the free memory."""
    check_memory(
        machine, chains * levels, f"{chains:,} chains at {levels} levels of tempering",
        "ask for fewer chains or levels",
    )  # fmt: skip
