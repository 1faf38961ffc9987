"""Denoising and inpainting: what a trained machine makes of damaged rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from gibbsian import meanfield
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.base import sample
from gibbsian.units import base as unit


@dataclass(frozen=True)
class Repair:
    """Damaged rows and what became of them.

    Attributes
    ----------
    original, damaged, repaired : Tensor (rows, n)
        `repaired` holds conditional means.
    before, after : float
        Mean squared error per damaged or hidden column against the original (per column of the
        whole row when denoising, where nobody says which columns are damaged).
    """

    original: Tensor
    damaged: Tensor
    repaired: Tensor
    before: float
    after: float


def denoise(
    machine: BoltzmannMachine,
    x: Float[Tensor, "rows n"],
    flip: float,
    generator: Generator | None,
    sweeps: int = 1,
) -> Repair:
    """Replace a fraction of the entries by noise, and let the machine take it back.

    Each entry, a single unit or a one-of-K block as a whole, is damaged with probability `flip`:
    two-valued units turn to their other value, others are redrawn from noise. The repair is
    `reconstruct`, repeated `sweeps` times.

    Raises
    ------
    GibbsianError
        If `flip` is no fraction.
    """
    if not 0 <= flip <= 1:
        raise GibbsianError(f"The fraction of flipped entries lies from 0 to 1, not {flip}.")
    widths = torch.tensor(machine.layers[0].domain.widths, device=x.device)
    draws = torch.rand((len(x), len(widths)), generator=generator, dtype=x.dtype, device=x.device)
    hit = (draws < flip).repeat_interleave(widths, dim=1)
    damaged = torch.where(hit, _other(machine, x, generator), x)
    repaired = damaged
    for _ in range(sweeps):
        repaired = reconstruct(machine, repaired)
    return Repair(x, damaged, repaired, _mse(damaged, x), _mse(repaired, x))


@torch.no_grad()
def reconstruct(machine: BoltzmannMachine, v: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
    """Return E[v | m], with m the means of the hidden layers given v: by mean field where they are several.

    With one hidden layer this is E[v | E[h | v]]. In a deep machine a plain pass up and down would leave out
    what a layer hears from its other side.
    """
    means = meanfield.infer(machine, v).means
    return unit.mean(machine.layers[0], machine.field(0, means))


def inpaint(
    machine: BoltzmannMachine,
    x: Float[Tensor, "rows n"],
    hidden: Bool[Tensor, " n"],
    generator: Generator | None,
    steps: int = 500,
    average: int = 50,
) -> Repair:
    """Hide columns and draw them anew, with all others held at their values.

    Block Gibbs chains with the visible columns clamped start from noise in the hidden ones; the repair
    is the mean of the conditional means of the last `average` of all `steps` steps.

    Raises
    ------
    GibbsianError
        If no column or every column is hidden, or there is no step.
    """
    if steps < 1 or average < 1:
        raise GibbsianError(
            f"Inpainting needs at least one step and one to average, not {steps} and {average}."
        )
    if not bool(hidden.any()) or bool(hidden.all()):
        raise GibbsianError(
            "Inpainting needs some columns hidden and some shown; change the range."
        )
    average = min(average, steps)
    begin = machine.layers[0].domain.noise(len(x), generator).to(x)
    damaged = torch.where(hidden, begin, x)
    clamp = (~hidden, x)
    found = sample(
        machine, len(x), steps - average, start=damaged, clamp=clamp, generator=generator
    )
    total = torch.zeros_like(x)
    for _ in range(average):
        found = sample(machine, len(x), 1, start=found.samples, clamp=clamp, generator=generator)
        total += found.means
    repaired = torch.where(hidden, total / average, x)
    blank = torch.where(hidden, x.mean(), x)
    return Repair(
        x, blank, repaired, _mse(damaged[:, hidden], x[:, hidden]),
        _mse(repaired[:, hidden], x[:, hidden]),
    )  # fmt: skip


def hidden_pixels(
    image_shape: Sequence[int] | None, rows: slice | None, columns: slice | None
) -> Bool[Tensor, " n"]:
    """Mark the pixels of some rows or columns of an image.

    Raises
    ------
    GibbsianError
        If the data are no images, or the range marks nothing.
    """
    if image_shape is None:
        raise GibbsianError("Rows and columns can be hidden in images only, and the data are none.")
    shape = list(image_shape)
    mask = torch.zeros(shape, dtype=torch.bool)
    # Colour images carry their channels first or last; height and width are the other two axes.
    first = 1 if len(shape) == 3 and shape[0] in (1, 3) else 0
    if rows is not None:
        mask.movedim(first, 0)[rows] = True
    if columns is not None:
        mask.movedim(first + 1, 0)[columns] = True
    if not bool(mask.any()) or bool(mask.all()):
        raise GibbsianError(
            f"The range must hide some but not all of the {shape[first]} rows and {shape[first + 1]} "
            "columns; give it as 10:17."
        )
    return mask.flatten()


def blocks_of(machine: BoltzmannMachine, marked: Bool[Tensor, " entries"]) -> Bool[Tensor, " n"]:
    """Mark the visible columns that stand for marked entries of a row: one, or K for one of K.

    Raises
    ------
    GibbsianError
        If the machine's visible layer does not have one unit or block for each entry.
    """
    widths = torch.tensor(machine.layers[0].domain.widths)
    if len(widths) != len(marked):
        raise GibbsianError(
            f"The machine has {len(widths)} visible units or blocks for {len(marked)} entries of a "
            "row; mark its columns one by one."
        )
    return marked.repeat_interleave(widths)


def _other(
    machine: BoltzmannMachine, x: Float[Tensor, "rows n"], generator: Generator | None
) -> Float[Tensor, "rows n"]:
    """Return the other value of two-valued columns, and noise for all others."""
    noise = machine.layers[0].domain.noise(len(x), generator).to(x)
    pieces, first = [], 0
    for table, width in zip(
        machine.layers[0].domain.blocks(), machine.layers[0].domain.widths, strict=True
    ):
        part = slice(first, first + width)
        two = table is not None and tuple(table.shape) == (2, 1)
        pieces.append(
            table.sum().to(x) - x[:, part] if two and table is not None else noise[:, part]
        )
        first += width
    return torch.cat(pieces, dim=1)


def _mse(a: Tensor, b: Tensor) -> float:
    return float(((a - b) ** 2).mean())
