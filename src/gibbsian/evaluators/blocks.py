"""The blocks of a layer, as runs of neighbours that share their values."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gibbsian.errors import DataError
from gibbsian.units.base import Units

_CHUNK = 4096  # rows whose blocks are compared with all their values at a time


@dataclass(frozen=True)
class Run:
    """Neighbouring blocks of one layer with the same values.

    Attributes
    ----------
    first : int
        First column of the run.
    count : int
        Number of blocks.
    values : Tensor (K, width) or None
        All values of each block; None for columns of real numbers.
    """

    first: int
    count: int
    values: Tensor | None

    @property
    def width(self) -> int:
        """Columns of one block."""
        return 1 if self.values is None else self.values.shape[1]

    @property
    def columns(self) -> slice:
        """Columns of the whole run."""
        return slice(self.first, self.first + self.count * self.width)


def runs(units: Units) -> list[Run]:
    """List the blocks of a layer from left to right, neighbours with one table together."""
    like = next(units.parameters())
    found: list[Run] = []
    table, first, count, column = None, 0, 0, 0

    def close() -> None:
        if count:
            values = None if table is None else table.to(like)
            found.append(Run(first, count, values))

    for block in units.domain.blocks():
        if block is not table or not count:
            close()
            table, first, count = block, column, 0
        count += 1
        column += 1 if block is None else block.shape[1]
    close()
    return found


def digits(run: Run, x: Float[Tensor, "rows n"]) -> Int[Tensor, "rows blocks"]:
    """Return which of its values each block of a run has; −1 where it is none of them."""
    if run.values is None:
        return torch.zeros(len(x), run.count, dtype=torch.long, device=x.device)
    blocks = x[:, run.columns].unflatten(-1, (run.count, run.width))
    same = (blocks.unsqueeze(-2) == run.values).all(dim=-1)
    return torch.where(same.any(dim=-1), same.to(torch.uint8).argmax(dim=-1), -1)


def check_states(units: Units, x: Float[Tensor, "rows n"], what: str) -> None:
    """Raise a `DataError` where a finite unit has a value that is none of its states.

    Rates between 0 and 1 are good data for bits, but only bits have a probability.
    """
    for run in runs(units):
        bad = torch.cat([digits(run, part) < 0 for part in x.split(_CHUNK)])
        if bool(bad.any()):
            row, block = (int(i) for i in bad.nonzero()[0])
            value = float(x[row, run.first + block * run.width])
            raise DataError(
                f"{what} are defined for states of the units, and {int(bad.sum())} of the values "
                f"(such as {value:g}) are none; draw bits from rates, or use a threshold, first."
            )
