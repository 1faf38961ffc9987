"""What the columns of a data matrix hold: kinds, names and categories."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

Layout = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Columns:
    """The columns of a matrix, in order.

    Attributes
    ----------
    layout : blocks (kind, width). Kinds are "real", "binary" ({0, 1}), "spin" ({-1, +1}), "onehot"
        (one block for each categorical column, of one-of-width) and, before one-hot encoding,
        "categorical" (a column of codes).
    names : one name for each column, or empty.
    categories : for each column the names of its codes (empty for a numerical column), or empty.
    """

    layout: Layout
    names: tuple[str, ...] = ()
    categories: tuple[tuple[str, ...], ...] = ()

    @property
    def kinds(self) -> list[str]:
        """The kind of each single column."""
        return [kind for kind, width in self.layout for _ in range(width)]

    @property
    def width(self) -> int:
        """The number of columns."""
        return sum(width for _, width in self.layout)

    def label(self, column: int) -> str:
        """How a message calls a column."""
        return f"'{self.names[column]}'" if self.names else f"{column} (counted from 0)"

    def active(self) -> Bool[Tensor, " width"] | None:
        """The columns that a numerical step changes; None stands for all of them.

        These are the real columns, or the binary ones if none is real, or else those of spins:
        in a table, scaling leaves yes/no columns and encoded categories as they are.
        """
        kinds = self.kinds
        for kind in ("real", "binary", "spin"):
            if kind in kinds:
                mask = torch.tensor([k == kind for k in kinds])
                return None if bool(mask.all()) else mask
        return torch.zeros(len(kinds), dtype=torch.bool)

    def turned(self, kind: str) -> Columns:
        """These columns after a step has turned the active ones into ``kind``."""
        mask = self.active()
        blocks: list[tuple[str, int]] = []
        start = 0
        for old, width in self.layout:
            # A block has one kind, so its first column decides.
            blocks.append((kind if mask is None or bool(mask[start]) else old, width))
            start += width
        return replace(self, layout=merged(blocks))


def merged(blocks: list[tuple[str, int]]) -> Layout:
    """``blocks`` with neighbours of the same kind joined; one-hot blocks stay apart."""
    out: list[tuple[str, int]] = []
    for kind, width in blocks:
        if out and out[-1][0] == kind and kind != "onehot":
            out[-1] = (kind, out[-1][1] + width)
        else:
            out.append((kind, width))
    return tuple(out)
