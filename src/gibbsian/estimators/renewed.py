"""Samplers that are fitted to the machine, within training: fitted anew while it learns."""

from abc import abstractmethod
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.machine import BoltzmannMachine, Clamps
from gibbsian.samplers import ChainState, Info, Sampler

# A sampler is fitted anew after at least so many steps, and then after so large a share of the steps made.
_FIRST, _SHARE = 100, 0.1
# The entry of a chain state's `extra` that counts steps: all of them, and those since it was fitted.
_CLOCK = "clock"


class Renewed(Sampler):
    """A sampler whose `init` fits something to the machine, fitted anew as the machine learns.

    The first fit sees a machine that has learned nothing, so others follow after 100 steps and then each time
    the number of steps has grown by a tenth: a hundred of them in 10⁶ steps.

    Parameters
    ----------
    inner : Sampler
        Makes the steps.
    """

    draws_visible = False

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner

    @abstractmethod
    def renewed(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None,
    ) -> ChainState:  # fmt: skip
        """Return the chains with what the inner sampler keeps besides, fitted to the machine as it is now."""

    def footprint(self, machine: BoltzmannMachine) -> int:
        """Return the inner sampler's."""
        return self.inner.footprint(machine)

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Start as the inner sampler does, and the clock."""
        made = self.inner.init(machine, visible, generator, clamps)
        return ChainState(made.layers, {**made.extra, _CLOCK: torch.zeros(2, dtype=torch.long)})

    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Make a step of the inner sampler, fitted anew if it is time."""
        total, since = state.extra[_CLOCK].tolist()
        if since >= max(_FIRST, _SHARE * total):
            state, since = self.renewed(machine, state, generator, clamps), 0
        after, info = self.inner.step(machine, state, generator, clamps)
        clock = torch.tensor([total + 1, since + 1])
        return replace(after, extra={**after.extra, _CLOCK: clock}), info


class MovingRates(Renewed):
    """Rates-FPCD whose mean statistics of the data are formed anew while the machine learns.

    Those of hidden units are means under the machine, so they move with it; fast weights are kept.
    """

    def renewed(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None,
    ) -> ChainState:  # fmt: skip
        """Form the statistics anew."""
        made = self.inner.init(machine, state.layers[0], generator, clamps)
        found = {k: t for k, t in made.extra.items() if k.startswith("rates.")}
        return replace(state, extra={**state.extra, **found})
