"""Chains from noise by every sampler, at given numbers of steps and within a budget of time."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import gibbsian as gb
from gibbsian import samplers
from gibbsian.samplers import Sampler
from gibbsian.units import base as unit

# Below so many chains figures say nothing.
_LEAST = 64
# Rows whose statistics drive rates-FPCD.
_ROWS = 2_000

Way = Callable[[gb.Trained], Sampler]


def _rows(trained: gb.Trained) -> Tensor:
    return trained.data.train.tensor(limit=_ROWS)


# Names of samplers, and what makes them for a run. "annealed" is no chain, and made by `annealed`.
SAMPLERS: dict[str, Way] = {
    "gibbs": lambda trained: samplers.Gibbs(),
    "tempering": lambda trained: samplers.Tempering(trained.reference),
    "langevin": lambda trained: samplers.Langevin(),
    "rates": lambda trained: samplers.RatesFPCD(_rows(trained), shared=True),
    "rates, each chain its own": lambda trained: samplers.RatesFPCD(_rows(trained)),
}
# Samplers whose chains take much memory each: no more chains than this.
FEW = {"rates, each chain its own": 64}


@dataclass(frozen=True)
class Drawn:
    """Samples of one sampler after one number of steps.

    Attributes
    ----------
    samples, means : Tensor (n, visible)
        Visible states, and their conditional means given the hidden states of the step.
    seconds : float
        Of the processor, for all steps from the start.
    levels : int
        Chains that stand behind each sample.
    """

    samples: Tensor
    means: Tensor
    seconds: float
    levels: int = 1


def draw(
    trained: gb.Trained, name: str, n: int, steps: tuple[int, ...], seconds: float, seed: int = 0
) -> Iterator[tuple[int, Drawn]]:
    """Yield samples at each number of steps: fewer than n where the budget allows no more, or none.

    All chains start from noise. Where n chains would take longer than `seconds` for the next number of
    steps, as many as it allows are started anew.
    """
    if name == "annealed":
        yield from _annealed(trained, n, steps, seconds, seed)
        return
    sampler, machine = SAMPLERS[name](trained), trained.machine
    n = min(n, FEW.get(name, n))
    walk: _Walk | None = None
    each = 0.0
    for at in steps:
        n = min(n, int(seconds / (each * at))) if each else n
        if n < _LEAST:
            return
        if walk is None or walk.n != n:
            walk = _Walk(sampler, machine, n, seed)
        yield at, walk.to(at)
        each = walk.each


class _Walk:
    """Chains of one sampler, moved on from one number of steps to the next."""

    def __init__(self, sampler: Sampler, machine: gb.BoltzmannMachine, n: int, seed: int) -> None:
        self.n, self.sampler, self.machine = n, sampler, machine
        self.generator = torch.Generator().manual_seed(seed)
        begin = time.process_time()
        visible = samplers.start(machine, n, "noise", self.generator)
        self.state = sampler.init(machine, visible, self.generator)
        self.done, self.seconds, self.each = 0, time.process_time() - begin, 0.0

    def to(self, step: int) -> Drawn:
        """Move the chains to a step."""
        begin, machine = time.process_time(), self.machine
        many = step - self.done
        self.state, _ = samplers.run(self.sampler, machine, self.state, many, self.generator)
        taken = time.process_time() - begin
        self.done, self.seconds, self.each = step, self.seconds + taken, taken / many / self.n
        layers = self.state.layers
        with torch.no_grad():
            means = unit.mean(machine.layers[0], machine.field(0, layers))
        levels = len(self.state.extra.get("replica", ())) or 1
        return Drawn(layers[0], means, self.seconds, levels)


def _annealed(
    trained: gb.Trained, n: int, steps: tuple[int, ...], seconds: float, seed: int
) -> Iterator[tuple[int, Drawn]]:
    """Anneal anew for each number of temperatures."""
    reference, each = trained.reference, 0.0
    for at in steps:
        n = min(n, int(seconds / (each * at))) if each else n
        if n < _LEAST:
            return
        begin = time.process_time()
        found = samplers.annealed(trained.machine, reference, n, at, seed)
        taken = time.process_time() - begin
        each = taken / at / n
        yield at, Drawn(found.samples, found.means, taken)
