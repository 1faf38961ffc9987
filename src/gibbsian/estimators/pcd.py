"""Persistent contrastive divergence: chains that are kept from update to update."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number
from gibbsian.errors import TrainingError
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
from gibbsian.samplers import STARTS, ChainState, Sampler
from gibbsian.samplers import start as first_states


class PCD(Estimator):
    """PCD-k, also called stochastic maximum likelihood (Younes 1999; Tieleman 2008).

    Parameters
    ----------
    steps : int
        Sampler steps k between updates.
    chains : int
        Number of persistent chains, independent of the batch size.
    start : {"reference", "noise", "data"}
        Where the chains begin. Independent units fitted to the data are the machine itself while
        its couplings are near zero, so ``reference`` starts the chains at equilibrium.
    refresh : float
        Probability with which each chain restarts from noise at each update. The chains then hold
        every age from 1 to a few times 1/refresh steps, so what a chain from noise passes through is
        trained away as well (after the random starts of Decelle, Furtlehner & Seoane 2021). It
        shortens the way from noise, at the price of a negative phase that is not quite the machine's
        equilibrium. 0 is plain PCD.
    sampler : Sampler, optional
        Block Gibbs unless given; tempering within PCD is PCD with a tempering sampler.

    Raises
    ------
    TrainingError
        If a count or a probability is impossible.
    """

    def __init__(
        self,
        steps: int = 1,
        chains: int = 100,
        start: str = "reference",
        refresh: float = 0.0,
        sampler: Sampler | None = None,
    ) -> None:
        self.steps = check_count(steps, "The number of steps of PCD")
        self.chains = check_count(chains, "The number of chains")
        if start not in STARTS:
            raise TrainingError(
                f"Chains of PCD start from {', '.join(STARTS)}, not from {start!r}."
            )
        if not 0 <= number(refresh, "The probability of a refresh", TrainingError) < 1:
            raise TrainingError(f"The probability of a refresh lies in [0, 1), not {refresh!r}.")
        self.start, self.refresh = start, float(refresh)
        self.sampler, named = check_sampler(sampler)
        self.config = {
            "kind": "pcd", "steps": self.steps, "chains": self.chains, "start": start,
            "refresh": self.refresh, **named,
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
        check_memory(machine, self.chains)
        visible = first_states(machine, self.chains, self.start, generator, data)
        return self.sampler.init(machine, visible, generator)

    @torch.no_grad()
    def step(
        self, machine: BoltzmannMachine, x: Float[Tensor, "batch n"],
        chains: ChainState | None, generator: Generator | None,
        weights: Float[Tensor, " batch"] | None = None,
    ) -> Phases:  # fmt: skip
        """Move the chains by k steps; sample weights weigh the data only."""
        if chains is None:
            raise TrainingError("PCD needs its chains: call init first.")
        data = posterior(machine, x, generator)
        if self.refresh:
            chains = self._restart(machine, chains, generator)
        for _ in range(self.steps - 1):
            chains, _ = self.sampler.step(machine, chains, generator)
        together = self.sampler.beside and self.sampler.beside(machine, chains, data, generator)
        if together:
            chains, state, fields = together
            terms = machine.terms(state, 1, fields)
        else:
            chains, info = self.sampler.step(machine, chains, generator)
            known = (machine.fields(1, data), info.fields)
            terms = stacked(machine, data, chains.layers, known)
        return Stacked(terms, len(x), (weights, None), chains)

    def _restart(
        self, machine: BoltzmannMachine, chains: ChainState, generator: Generator | None
    ) -> ChainState:
        """Put noise in place of some chains."""
        like = chains.layers[0][:, 0]
        hit = (
            torch.rand(like.shape, generator=generator, device=like.device) < self.refresh
        ).nonzero()
        if not len(hit):
            return chains
        noise = first_states(machine, len(hit), "noise", generator)
        fresh = self.sampler.init(machine, noise, generator)
        pairs = zip(chains.layers, fresh.layers, strict=True)
        return replace(chains, layers=tuple(a.index_copy(0, hit[:, 0], b.to(a)) for a, b in pairs))


def check_memory(machine: BoltzmannMachine, chains: int) -> None:
    """Refuse chains whose states, with the sampler's working copies, exceed the free memory."""
    like = next(machine.parameters())
    need = 4 * chains * sum(machine.sizes) * like.element_size()
    free = free_memory(like)
    if free is not None and need > free:
        raise TrainingError(
            f"{chains:,} chains need about {need / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            "free; ask for fewer chains."
        )


def free_memory(like: Tensor) -> int | None:
    """Return the free bytes on the device of `like`, or None where that is not known."""
    if like.device.type == "cuda":
        return torch.cuda.mem_get_info(like.device)[0]
    try:
        with open("/proc/meminfo") as file:
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
