"""Greedy pre-training of deep Boltzmann machines by the doubling rule (Salakhutdinov & Hinton 2009, 2012).

One RBM for each two neighbouring layers, trained from below on the states that the RBM beneath makes of
the data. In the deep machine every layer but the lowest and the top one is driven from both sides, in an
RBM from one only. What is missing there is made up for: the first RBM sees two tied copies of the visible
layer, the last one has two of the top layer, and those between, trained plainly, give half their couplings.
A shared layer's bias is the mean of its two RBMs'. Two copies of bits, added up, are exactly one layer of
`Binomial(2)` units.

With two hidden layers this makes p(h¹) ∝ √(p₁(h¹) p₂(h¹)), where p₁ and p₂ are both RBMs' distributions of
the layer that they share, and leaves p(v | h¹) as the first RBM has it. The normaliser Σ √(p₁ p₂) is at most
1, so

    bound(deep machine) ≥ bound(first RBM) + ½ E_q[log p₂(h¹) − log p₁(h¹)]

for one q(h¹ | v): where the second RBM models the states of the first better than that does itself, the
variational bound on the data's likelihood rises.
"""

import math
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from gibbsian import units as families
from gibbsian.data import Dataset
from gibbsian.errors import TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.models import layered
from gibbsian.stacking import Doubled, Lift, Up, through
from gibbsian.units import Units
from gibbsian.units import base as unit

FOLDER = "layers"

# From an RBM, its data, its number from 1, and the folder of its run, to the RBM trained.
Fit = Callable[[BoltzmannMachine, Dataset, int, Path | None], BoltzmannMachine]


def stack(machine: BoltzmannMachine) -> list[BoltzmannMachine]:
    """Return the RBMs of a deep machine, from below, untrained.

    Raises
    ------
    TrainingError
        If it has one hidden layer only, or two copies of its visible or its top layer are no units.
    """
    if len(machine.layers) < 3:
        raise TrainingError(
            "Pre-training is for machines of two or more hidden layers, and this one has one; leave it out."
        )
    pairs, last = list(pairwise(machine.layers)), len(machine.layers) - 2
    return [
        layered(
            _doubled(a, "visible") if i == 0 else _like(a),
            _doubled(b, "top") if i == last else _like(b),
        )
        for i, (a, b) in enumerate(pairs)
    ]


def _like(units: Units) -> Units:
    """Return new units of this kind, with the same parameters fixed at the same values."""
    made = families.from_spec(families.spec(units))
    return _fixed(made, units)


def _doubled(units: Units, which: str) -> Units:
    made = units.doubled()
    if made is None:
        raise TrainingError(
            f"Pre-training doubles the {which} layer, and two tied copies of {type(units).__name__} units "
            "are no units of a known kind (those of Bernoulli and Binomial units are); leave pre-training "
            "out, as centred training needs none."
        )
    return _fixed(made, units)


@torch.no_grad()
def _fixed(made: Units, units: Units) -> Units:
    """Fix the parameters of `made` that are fixed in `units`, at their values."""
    named = dict(units.named_parameters())
    for name, p in made.named_parameters():
        p.requires_grad_(named[name].requires_grad)
        if not p.requires_grad:
            p.copy_(named[name])
    return made


@torch.no_grad()
def compose(machine: BoltzmannMachine, rbms: list[BoltzmannMachine]) -> None:
    """Put the parameters of trained RBMs (see `stack`) into a deep machine, in place.

    Middle couplings are halved. A shared layer takes the mean of the natural parameters of its two RBMs.
    """
    last = len(rbms) - 1
    for i, (joint, rbm) in enumerate(zip(machine.joints, rbms, strict=True)):
        joint.weight.copy_(rbm.joints[0].weight * (1.0 if i in (0, last) else 0.5))
    for i, units in enumerate(machine.layers):
        owners = [rbms[i - 1].layers[1]] if i > 0 else []
        owners += [rbms[i].layers[0]] if i <= last else []
        for name, p in units.named_parameters():
            p.copy_(_mean(name, [u.get_parameter(name) for u in owners]))


def _mean(name: str, values: list[Tensor]) -> Tensor:
    """Return the mean of natural parameters, of which those called log_… are the logarithms."""
    together = torch.stack(values)
    if unit.is_log(name):
        return together.logsumexp(dim=0) - math.log(len(values))
    return together.mean(dim=0)


def pretrain(
    machine: BoltzmannMachine, data: Dataset, fit: Fit, folder: Path | None = None
) -> BoltzmannMachine:
    """Train the RBMs of a machine one after another, and put them together into it.

    Parameters
    ----------
    machine : BoltzmannMachine
        Changed in place.
    data : Dataset
        Rows of the visible layer; those of higher ones are made on the fly.
    fit : callable
        Trains one RBM; where it is given a folder with an unfinished run it goes on with that, and returns
        the machine of a finished one as it is.
    folder : Path, optional
        The folder of the deep machine's run: RBM k has a run of its own in ``layers/k``.

    Returns
    -------
    BoltzmannMachine
        The machine.
    """
    trained: list[BoltzmannMachine] = []
    lifts: list[Lift] = [Doubled(machine.layers[0])]
    for number, rbm in enumerate(stack(machine), start=1):
        place = None if folder is None else folder / FOLDER / str(number)
        trained.append(fit(rbm, through(data, *lifts), number, place))
        lifts.append(Up(trained[-1]))
    compose(machine, [rbm.to("cpu") for rbm in trained])
    return machine


def forget(folder: Path) -> None:
    """Remove the runs of RBMs that an earlier run in this folder left."""
    for place in (folder / FOLDER).glob("*"):
        if (place / "config.toml").is_file():
            shutil.rmtree(place)
