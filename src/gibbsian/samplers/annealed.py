"""Annealed sampling: chains that pass once along a path, from exact draws of its start to its end."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.machine import BoltzmannMachine, Clamps
from gibbsian.path import BaseRatePath, check_levels, check_start
from gibbsian.samplers.base import ChainState, Samples, as_generator, check_proper
from gibbsian.samplers.gibbs import draw
from gibbsian.units import base as unit

# Called with the number k of a temperature, the layers and the target's fields on the odd ones.
Visit = Callable[[int, list[Tensor], dict[int, Tensor]], None]


def annealed(
    machine: BoltzmannMachine,
    reference: BoltzmannMachine,
    n: int = 64,
    temperatures: int | Sequence[float] = 1000,
    generator: Generator | int | None = None,
) -> Samples:
    """Draw samples by annealing (Kirkpatrick et al. 1983; as in AIS, Neal 2001, without weights).

    Each chain starts as an exact sample of the reference (β = 0) and makes one Gibbs sweep at each β on the
    way to the machine (β = 1) along the base-rate path. The chains never wait for each other and never
    turn back: a mode gets the share of chains that fell into its valley, and with too few temperatures that
    is not its probability. Tempering and the weights of AIS correct it; this does not.

    Parameters
    ----------
    machine, reference : BoltzmannMachine
        The machine, and the same with W = 0: see `gibbsian.path.reference`.
    n : int
        Number of chains; each yields one sample.
    temperatures : int or sequence of float
        Number K of evenly spaced steps, or the values β_0 = 0 … β_K = 1 themselves.
    generator : torch.Generator or int
        Source of randomness, or a seed; seed 0 unless given.

    Returns
    -------
    Samples
        Without a trace.

    Raises
    ------
    GibbsianError
        If a setting is impossible, the reference does not fit, or the machine has no finite Z.
    """
    check_proper(machine)
    check_start(machine, reference)
    n, generator = whole(n, "The number of samples"), as_generator(generator, machine)
    betas = _betas(temperatures)
    path = BaseRatePath(reference, machine)
    with torch.no_grad():
        layers = anneal(path, betas[:-1], n, generator)
        draw(machine, layers, 1, generator)
        means = unit.mean(machine.layers[0], machine.field(0, layers))
        draw(machine, layers, 0, generator)
        draw(machine, layers, 1, generator)
    return Samples(layers[0], means, None, (), ChainState(tuple(layers)))


@torch.no_grad()
def anneal(
    path: BaseRatePath,
    betas: Sequence[float],
    chains: int,
    generator: Generator | None,
    clamps: Clamps | None = None,
    visit: Visit | None = None,
    sweeps: int = 1,
) -> list[Tensor]:
    """Carry exact samples of the path's start through `betas`, the first of which is 0.

    At each later β the odd layers are drawn given the even ones, then the even ones, `sweeps` times.
    ``visit(k, layers, fields)`` sees the layers at the k-th β, and the target's fields on the odd ones.
    """
    layers = list(path.draw(chains, generator))
    for i, clamp in (clamps or {}).items():
        layers[i] = clamp.apply(layers[i])
    fields = path.fields(1, layers)
    for k, beta in enumerate(betas):
        for _ in range(sweeps if k else 0):
            now = path.at(beta)
            draw(now, layers, 1, generator, clamps, {i: beta * f for i, f in fields.items()})
            below = path.fields(0, layers)
            draw(now, layers, 0, generator, clamps, {i: beta * f for i, f in below.items()})
            fields = path.fields(1, layers)
        if visit is not None:
            visit(k, layers, fields)
    return layers


def _betas(temperatures: int | Sequence[float]) -> list[float]:
    if hasattr(temperatures, "__len__"):
        return check_levels(temperatures)
    steps = whole(temperatures, "The number of temperatures")
    return [k / steps for k in range(steps + 1)]
