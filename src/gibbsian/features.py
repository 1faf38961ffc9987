"""What hidden units of any layer look for, and their mean states given rows."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.connections import Connection
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.meanfield import infer


def features(machine: BoltzmannMachine, layer: int = 1) -> Float[Tensor, "units visible"]:
    """Return what each unit of a hidden layer looks like in the columns of the visible one.

    Row j is column j of W_1 W_2 … W_layer: the couplings of the first layer, and from there on the sum of
    the features below, weighted by the couplings to them (Lee, Ekanadham & Ng 2008). It is a linear
    projection: what the units between do with their field is left out, so that of a deep unit it shows
    the direction and not the response.

    Parameters
    ----------
    machine : BoltzmannMachine
    layer : int
        From 1, the first hidden layer, or from −1, the top one, downwards.

    Raises
    ------
    GibbsianError
        If there is no such hidden layer.
    """
    return projection(machine.joints, hidden_layer(layer, len(machine.joints)))


@torch.no_grad()
def projection(joints: Sequence[Connection], layer: int) -> Float[Tensor, "units visible"]:
    """Return the product of couplings from a layer down to the visible one, a row a unit.

    `joints` lead upwards from the visible layer, in a Boltzmann machine or in a directed network. Where
    one joins more than the layer below (labels beside it), the columns beyond that layer are left out.
    """
    top = joints[layer - 1]
    like = next(top.parameters())
    rows = torch.eye(top.upper, dtype=like.dtype, device=like.device)
    for i in range(layer - 1, -1, -1):
        rows = joints[i].down(rows)
        if i > 0:
            rows = rows[:, : joints[i - 1].upper]
    return rows


def transform(
    machine: BoltzmannMachine, rows: Float[Tensor, "rows visible"], layer: int = -1
) -> Float[Tensor, "rows units"]:
    """Return the mean state of each unit of a hidden layer given the rows.

    With one hidden layer these are the exact E[h | v]; in a deeper machine, whose layers depend on each
    other given v, they are those of mean field (`gibbsian.meanfield`).

    Parameters
    ----------
    machine : BoltzmannMachine
    rows : Tensor (rows, visible)
    layer : int
        From 1, the first hidden layer, or from −1, the top one, downwards.

    Raises
    ------
    GibbsianError
        If there is no such hidden layer.
    DataError
        If the rows do not fit the visible layer.
    """
    wanted = hidden_layer(layer, len(machine.joints))
    machine.check(rows, "the rows")
    return infer(machine, rows.to(next(machine.parameters()))).means[wanted]


def hidden_layer(layer: int, count: int) -> int:
    """Return the number of a hidden layer, from 1 to `count`, of a number that may count from the top.

    Raises
    ------
    GibbsianError
        If there is no such layer.
    """
    found = layer + count + 1 if layer < 0 else layer
    if not 1 <= found <= count:
        which = "layer is 1" if count == 1 else f"layers are 1 to {count}"
        raise GibbsianError(
            f"There is no hidden layer {layer}: this machine's {which} (or counted from the top, −1)."
        )
    return found


__all__ = ["features", "hidden_layer", "projection", "transform"]
