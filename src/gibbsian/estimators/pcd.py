"""Persistent contrastive divergence: chains that are kept from update to update."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number
from gibbsian.errors import TrainingError
from gibbsian.estimators.base import (
    Estimator,
    Phases,
    Stacked,
    beneath,
    check_sampler,
    inferred,
    posterior,
)
from gibbsian.estimators.chains import check_chains, check_memory, present
from gibbsian.estimators.moving_ladder import check_levels
from gibbsian.estimators.named import check_name, check_options, named
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import ChainState, Gibbs, Sampler
from gibbsian.samplers import start as first_states

INFERENCES = ("mean-field", "gibbs")


class PCD(Estimator):
    """PCD-k, also called stochastic maximum likelihood (Younes 1999; Tieleman 2008).

    Parameters
    ----------
    steps : int
        Sampler steps k between updates.
    chains : int
        Number of persistent chains, independent of the batch size. Where chains mix slowly, few of them
        limit the likelihood late in training: in the same seven minutes 500 gained 0.6 nat over 100 on MNIST.
    start : {"reference", "noise", "data"}
        Where the chains begin. Independent units fitted to the data are the machine itself while
        its couplings are near zero, so ``reference`` starts the chains at equilibrium.
    refresh : float
        Probability with which each chain restarts from noise at the first update; it falls with the learning
        rate. The chains then hold every age from 1 to a few times 1/refresh steps, so what a chain from
        noise passes through is trained away as well (after the random starts of Decelle, Furtlehner & Seoane
        2021). It shortens the way from noise, and the negative phase is not quite the machine's equilibrium
        until the end, when the rate has fallen: held, it would leave a machine that only chains of about
        1/refresh steps show rightly. 0 is plain PCD.
    sampler : str or Sampler, optional
        Block Gibbs unless given; an object, or a name of `gibbsian.estimators.named.NAMES` for one with
        settings that suit training. ``tempering`` is PT-PCD (Desjardins et al. 2010; Salakhutdinov 2010): the
        chains are the top of a ladder whose levels are placed anew as the machine learns
        (`gibbsian.estimators.moving_ladder`). An update costs as much as PCD's with levels times the chains.
        ``transitions`` are tempered transitions on such a ladder (Salakhutdinov 2009), as dear with half of
        the levels, in the memory of plain PCD. ``langevin`` moves Gaussian visible units;
        ``gibbs-langevin`` does so given hidden states and without Metropolis's rule (Liao et al. 2022).
        ``driven`` and ``rates`` do not sample the machine itself, so the gradient is biased, as FPCD's is.
    levels : int, optional
        Of tempering and transitions: the number of levels; as many as they need unless given.
    sampler_options : mapping, optional
        Settings of a sampler by its name that are plain values, such as ``{"size": 0.05}`` for ``langevin``;
        what is left out suits training.
    inference : {"mean-field", "gibbs"}
        The positive phase of machines with more than one hidden layer. Mean field (Salakhutdinov &
        Hinton 2009) makes the gradient that of a variational bound, without noise; Gibbs sweeps with the
        visible layer held make it that of the likelihood, with noise.

    Raises
    ------
    TrainingError
        If a count or a probability is impossible, or the sampler does not take its options.
    """

    def __init__(
        self,
        steps: int = 1,
        chains: int = 100,
        start: str = "reference",
        refresh: float = 0.0,
        sampler: Sampler | str | None = None,
        levels: int | None = None,
        inference: str = "mean-field",
        sampler_options: Mapping[str, Any] | Any = None,
    ) -> None:
        self.steps, self.chains = check_chains("PCD", steps, chains, start)
        if not 0 <= number(refresh, "The probability of a refresh", TrainingError) < 1:
            raise TrainingError(f"The probability of a refresh lies in [0, 1), not {refresh!r}.")
        self.start, self.refresh = start, float(refresh)
        self.levels = check_levels(levels)
        self._name = sampler if isinstance(sampler, str) else None
        check_name(self._name, levels)
        if inference not in INFERENCES:
            raise TrainingError(
                f"PCD's positive phase is {' or '.join(INFERENCES)}, not {inference!r}."
            )
        self.inference = inference
        # One with a name is made by `init`, which has the rows that it may be fitted to.
        self.sampler, kept = check_sampler(None if isinstance(sampler, str) else sampler)
        if self._name not in (None, "gibbs"):
            kept = {"sampler": self._name}
        self.sampler_options = check_options(sampler, sampler_options)
        options = {"sampler_options": self.sampler_options} if self.sampler_options else {}
        self.config = {
            "kind": "pcd", "steps": self.steps, "chains": self.chains, "start": start,
            "refresh": self.refresh, **kept, **({} if levels is None else {"levels": self.levels}),
            **({} if inference == INFERENCES[0] else {"inference": inference}), **options,
        }  # fmt: skip

    def init(
        self, machine: BoltzmannMachine, data: Float[Tensor, "rows n"], generator: Generator | None
    ) -> ChainState:
        """Start the chains.

        Raises
        ------
        TrainingError
            If that many chains would not fit into memory.
        """
        if self._name is None:
            check_memory(machine, self.chains)
        else:
            self.sampler = named(
                self._name, machine, self.chains, data, self.levels, self.sampler_options
            )
        visible = first_states(machine, self.chains, self.start, generator, data)
        return self.sampler.init(machine, visible, generator)

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, x: Float[Tensor, "batch n"],
        chains: ChainState | None, generator: Generator | None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> Phases:  # fmt: skip
        """Move the chains by k steps; sample weights weigh the data only."""
        chains = present("PCD", chains)
        by_chance = self.inference == "gibbs"
        data = posterior(machine, x, generator) if by_chance else (x, x)
        deep = None if by_chance else inferred(machine, x)
        if self.refresh:
            chains = self._restart(machine, chains, generator)
        for _ in range(self.steps - 1):
            chains, _ = self.sampler.step(machine, chains, generator)
        beside = self.sampler.beside if deep is None else None
        together = beside and beside(machine, chains, data, generator)
        if together:
            chains, state, fields = together
            terms = machine.terms(state, 1, fields)
        else:
            chains, info = self.sampler.step(machine, chains, generator)
            terms = beneath(machine, data, deep, chains.layers, info.fields)
        return Stacked(terms, len(x), (weights, None), chains)

    def _restart(
        self, machine: BoltzmannMachine, chains: ChainState, generator: Generator | None
    ) -> ChainState:
        """Put noise in place of some chains."""
        like = chains.layers[0][:, 0]
        drawn = torch.rand(like.shape, generator=generator, device=like.device)
        hit = (drawn < self.refresh * self.pace).nonzero()
        if not len(hit):
            return chains
        noise = first_states(machine, len(hit), "noise", generator)
        # Not the sampler's own: what it keeps besides (the levels of tempering) is not renewed.
        fresh = Gibbs().init(machine, noise, generator)
        pairs = zip(chains.layers, fresh.layers, strict=True)
        return replace(chains, layers=tuple(a.index_copy(0, hit[:, 0], b.to(a)) for a, b in pairs))
