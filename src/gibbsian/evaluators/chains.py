"""Chains from several kinds of start, and the little of them that is kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import ChainState, Gibbs, Info, Sampler, run, start
from gibbsian.samplers.base import as_generator

# Steps at which pictures of the same chains are kept.
RECORDED = (0, 1, 10, 100, 1_000, 10_000)


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
    """

    energies: Float[Tensor, "draws chains"]
    at: Int[Tensor, " draws"]
    thin: int
    visible: Mapping[int, Tensor]
    state: ChainState

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

    Raises
    ------
    GibbsianError
        If a setting is impossible.
    """
    if steps < 1 or draws < 1:
        raise GibbsianError(f"Chains need at least one step and one draw, not {steps} and {draws}.")
    generator = as_generator(generator, machine)
    sampler = sampler or Gibbs()
    found = {}
    for where in starts:
        visible = start(machine, chains, where, generator, data)
        state = sampler.init(machine, visible, generator)
        told = _told(where, steps, progress)
        found[where] = _trace(machine, sampler, state, steps, record, draws, generator, told)
    return found


def _told(
    where: str, steps: int, progress: Callable[[str, float], None] | None
) -> Callable[[int], None]:
    def tell(i: int) -> None:
        if progress is not None and (i % max(1, steps // 100) == 0 or i == steps):
            progress(f"chains from {where}", i / steps)

    return tell


def _trace(
    machine: BoltzmannMachine,
    sampler: Sampler,
    state: ChainState,
    steps: int,
    record: Sequence[int],
    draws: int,
    generator: Generator,
    tell: Callable[[int], None],
) -> Trace:
    thin, wanted = math.ceil(steps / draws), set(record)
    kept = {0: state.layers[0].clone()} if 0 in wanted else {}
    energies: list[Tensor] = []

    def visit(i: int, now: ChainState, info: Info) -> None:
        if i % thin == 0:
            energies.append(machine.marginal_energy(now.layers, fields=info.fields))
        if i in wanted:
            kept[i] = now.layers[0].clone()
        tell(i)

    state, _ = run(sampler, machine, state, steps, generator, visit=visit)
    at = torch.arange(1, len(energies) + 1) * thin
    return Trace(torch.stack(energies), at, thin, kept, state)
