"""Growth: a machine begins as a smaller one, with more layers on top.

With no couplings between the layers that are known and those above, a deep Boltzmann machine gives the
visible layer exactly the distribution of the smaller machine, and its variational bound is no lower. Joint
training goes on from there, so what layers on top are worth can be read from the bound.
"""

import torch

from gibbsian import units as families
from gibbsian.errors import TrainingError
from gibbsian.initialise import take_back
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import base as unit


@torch.no_grad()
def grow(machine: BoltzmannMachine, smaller: BoltzmannMachine) -> None:
    """Put the parameters of a smaller machine into the lowest layers of a machine, in place.

    Couplings above stay as they are (small and random, from `initialise`); the field that they make of the
    layer above at its mean is taken back by the bias of the layer below, so that means stay what they were.

    Parameters
    ----------
    machine : BoltzmannMachine
    smaller : BoltzmannMachine
        With the same lowest layers, all of its own; with as many layers it is copied whole.

    Raises
    ------
    TrainingError
        If the layers differ in kind or size, or the smaller machine has more of them.
    """
    known = len(smaller.layers)
    wanted = [families.spec(u) for u in machine.layers[:known]]
    found = [families.spec(u) for u in smaller.layers]
    if wanted != found or [type(c) for c in machine.joints[: known - 1]] != [
        type(c) for c in smaller.joints
    ]:
        raise TrainingError(
            f"A machine of {_told(machine)} units cannot begin as one of {_told(smaller)}: the layers of "
            "the smaller one must be its lowest layers, in size and in kind."
        )
    for low, high in zip(smaller.layers, machine.layers, strict=False):
        high.load_state_dict(low.state_dict())
    for low, high in zip(smaller.joints, machine.joints, strict=False):
        high.load_state_dict(low.state_dict())
    if known < len(machine.layers):
        above = machine.layers[known]
        rest = unit.mean(above, machine.joints[known - 1].weight.new_zeros(above.size))
        take_back(machine.layers[known - 1], machine.joints[known - 1].down(rest))


def _told(machine: BoltzmannMachine) -> str:
    return "-".join(map(str, machine.sizes))
