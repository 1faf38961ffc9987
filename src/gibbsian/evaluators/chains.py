"""Chains from several kinds of start, and the little of them that is kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import ChainState, Sampler, run, start
from gibbsian.samplers.base import as_generator, as_sampler, check_memory

# Steps at which pictures of the same chains are kept.
RECORDED = (0, 1, 10, 100, 1_000, 10_000)
# Times in the second half at which states are kept for comparisons of samples.
LATE = 10


@dataclass(frozen=True)
class Trace:
    """What is kept of chains that all began in one way.

    Attributes
    ----------
    energies : Tensor (draws, chains)
        Free energies F (the odd layers summed out) in nats, in float64.
    at : Tensor (draws,)
        The steps they belong to; `thin` apart.
    thin : int
        Steps between two draws.
    visible : mapping of int to Tensor (chains, n)
        Visible states (samples, not means) at the steps that were recorded.
    state : ChainState
        Everything needed to go on.
    observed : Tensor (draws, chains, q), optional
        Observables of the visible states, at the steps of the energies.
    late : Tensor (times, chains, n), optional
        Visible states at evenly spaced draws of the second half, the last of all among them.
    """

    energies: Float[Tensor, "draws chains"]
    at: Int[Tensor, " draws"]
    thin: int
    visible: Mapping[int, Tensor]
    state: ChainState
    observed: Float[Tensor, "draws chains q"] | None = None
    late: Float[Tensor, "times chains n"] | None = None

    def after(self, burn: float) -> Float[Tensor, "kept chains"]:
        """Return the energies without the first share `burn` of the draws."""
        return self.energies[int(burn * len(self.energies)) :]


def run_chains(
    machine: BoltzmannMachine,
    chains: int = 100,
    steps: int = 1_000,
    starts: Sequence[str] = ("noise", "data"),
    data: Float[Tensor, "rows n"] | None = None,
    record: Sequence[int] = RECORDED,
    sampler: Sampler | None = None,
    draws: int = 2_000,
    generator: Generator | int | None = None,
    progress: Callable[[str, float], None] | None = None,
    observe: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Trace]:
    """Run chains from several kinds of start and keep their energies.

    Memory does not grow with `steps`: one number a chain is kept at every step, or, in longer runs,
    at every `thin`-th so that there are at most `draws`; and the visible states at the recorded steps.

    Parameters
    ----------
    machine : BoltzmannMachine
    chains, steps : int
        Number of chains of each start, and of sampler steps.
    starts : sequence of str
        Names of starts: see `gibbsian.samplers.start`.
    data : Tensor (rows, visible), optional
        Needed for starts other than noise.
    record : sequence of int
        Steps at which the visible states are kept; those beyond `steps` are left out.
    sampler : Sampler, optional
        Block Gibbs unless given.
    draws : int
        Most energies kept of each chain.
    generator : torch.Generator or int
        Source of randomness, or a seed.
    progress : callable, optional
        Called with the name of the start and the fraction done, about a hundred times.
    observe : callable, optional
        Observables (chains, q) of visible states (chains, n), kept beside the energies; with it go a few
        visible states of the second half, for what needs samples.

    Raises
    ------
    GibbsianError
        If a setting is impossible.
    """
    if steps < 1 or draws < 1:
        raise GibbsianError(f"Chains need at least one step and one draw, not {steps} and {draws}.")
    generator = as_generator(generator, machine)
    sampler = as_sampler(sampler)
    check_memory(sampler, machine, whole(chains, "The number of chains"))
    found = {}
    for where in starts:
        visible = start(machine, chains, where, generator, data)
        state = sampler.init(machine, visible, generator)
        told = _told(where, steps, progress)
        found[where] = _trace(
            machine, sampler, state, steps, record, draws, generator, told, observe
        )
    return found


def _told(
    where: str, steps: int, progress: Callable[[str, float], None] | None
) -> Callable[[int], None]:
    told = 0

    def tell(i: int) -> None:
        nonlocal told
        if progress is not None and i > told and (i - told >= steps // 100 or i == steps):
            told = i
            progress(f"chains from {where}", i / steps)

    return tell


@torch.no_grad()
def _trace(
    machine: BoltzmannMachine,
    sampler: Sampler,
    state: ChainState,
    steps: int,
    record: Sequence[int],
    draws: int,
    generator: Generator,
    tell: Callable[[int], None],
    observe: Callable[[Tensor], Tensor] | None = None,
) -> Trace:
    thin, wanted = math.ceil(steps / draws), set(record)
    total = steps // thin
    spots = {total - i * (total // 2) // LATE for i in range(LATE)} if observe else set()
    observed: list[Tensor] = []
    late: list[Tensor] = []
    kept = {0: state.layers[0].clone()} if 0 in wanted else {}
    energies: list[Tensor] = []

    done = 0
    for i in sorted({*range(thin, steps + 1, thin), *(w for w in wanted if 0 < w <= steps)}):
        # Nobody looks in between, so a sampler may leap there.
        state, _ = run(sampler, machine, state, i - done - 1, generator)
        state, info = sampler.step(machine, state, generator)
        done = i
        if i % thin == 0:
            energies.append(machine.marginal_energy(state.layers, fields=info.fields))
            if observe is not None:
                observed.append(observe(state.layers[0]))
            if i // thin in spots:
                late.append(state.layers[0].clone())
        if i in wanted:
            kept[i] = state.layers[0].clone()
        tell(i)
    state, _ = run(sampler, machine, state, steps - done, generator)
    tell(steps)
    at = torch.arange(1, len(energies) + 1) * thin
    seen = (torch.stack(observed), torch.stack(late)) if observe is not None else (None, None)
    return Trace(torch.stack(energies), at, thin, kept, state, *seen)
