"""Contrastive divergence: chains restarted at the data for every update."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.estimators.base import (
    Estimator,
    Phases,
    Stacked,
    check_count,
    check_sampler,
    posterior,
    stacked,
)
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import ChainState, Sampler
from gibbsian.samplers.gibbs import draw


class CD(Estimator):
    """CD-k (Hinton 2002): the negative chains start at the batch and run k steps.

    Biased for finite k: such a machine is trained out of equilibrium, and its chains from noise say
    nothing about its likelihood.

    Parameters
    ----------
    steps : int
        k, the number of sampler steps.
    sampler : Sampler, optional
        Block Gibbs unless given.
    """

    def __init__(self, steps: int = 1, sampler: Sampler | None = None) -> None:
        self.steps = check_count(steps, "The number of steps of CD")
        self.sampler, named = check_sampler(sampler)
        # Block Gibbs goes on from the positive phase's fields; other samplers make their own state.
        self._plain = sampler is None
        self.config = {"kind": "cd", "steps": self.steps, **named}

    def init(
        self, machine: BoltzmannMachine, data: Float[Tensor, "rows n"], generator: Generator | None
    ) -> ChainState | None:
        """Return None: nothing persists."""
        return None

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, x: Float[Tensor, "batch n"],
        chains: ChainState | None, generator: Generator | None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> Phases:  # fmt: skip
        """Run k steps from the batch; sample weights weigh both phases."""
        data = posterior(machine, x, generator)
        begin = machine.fields(1, data)
        if self._plain:
            layers = list(data)
            draw(machine, layers, 1, generator, fields=begin)
            chain = ChainState(tuple(layers))
        else:
            chain = self.sampler.init(machine, x, generator)
        info = None
        for _ in range(self.steps):
            chain, info = self.sampler.step(machine, chain, generator)
        assert info is not None  # there is at least one step
        terms = stacked(machine, data, chain.layers, (begin, info.fields))
        return Stacked(terms, len(x), (weights, weights), None)
