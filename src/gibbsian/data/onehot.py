"""One-hot encoding of categorical columns, with categories learned from the training rows."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor

from gibbsian.data.columns import Columns, merged
from gibbsian.data.steps import Chunks, Step, floating
from gibbsian.errors import DataError

_MOST = 4096  # levels of one column; beyond, it is hardly a category


@final
class OneHot(Step):
    """Each categorical column becomes, in place, a block with one 1 at its category.

    The columns are those named (or numbered) in ``chosen``; if none is, the text columns of a
    table; and if there are none, every column, which then must hold whole numbers. The categories
    are those of the training rows, in ascending order; any other category is an error. Columns of bits
    always have both.
    """

    learned = ("levels", "encoded")

    def __init__(self, chosen: tuple[str, ...] = ()) -> None:
        self.chosen = chosen
        self.text = "one-hot" + (":" + ",".join(chosen) if chosen else "")
        self.levels: list[list[float]] = []
        self.encoded: list[int] = []

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Collect the levels of each encoded column."""
        self.encoded = self._choose(columns)
        found: list[set[float]] = [set() for _ in self.encoded]
        for x in chunks():
            for levels, column in zip(found, self.encoded, strict=True):
                levels.update(torch.unique(x[:, column]).double().tolist())
                self._check(levels, columns.label(column))
        # A bit that is constant in the training rows is still a bit, and may differ in others.
        kinds = columns.kinds
        self.levels = [
            [0.0, 1.0] if kinds[column] == "binary" else sorted(levels)
            for levels, column in zip(found, self.encoded, strict=True)
        ]

    def _choose(self, columns: Columns) -> list[int]:
        kinds = columns.kinds
        if not self.chosen:
            text = [i for i, kind in enumerate(kinds) if kind == "categorical"]
            return text or list(range(columns.width))
        names = columns.names or tuple(str(i) for i in range(columns.width))
        for name in self.chosen:
            if name not in names:
                known = ", ".join(names[:20])
                raise DataError(f"one-hot can't find the column '{name}': the columns are {known}.")
        return sorted({names.index(name) for name in self.chosen})

    def _check(self, levels: set[float], label: str) -> None:
        if len(levels) > _MOST:
            raise DataError(
                f"one-hot finds over {_MOST} categories in column {label}: drop that column, or "
                "treat it as a number."
            )
        if not all(level.is_integer() for level in levels):
            raise DataError(
                f"one-hot needs whole numbers or text, and column {label} holds other numbers: "
                "name the categorical columns, as in 'one-hot:colour,size'."
            )

    def bind(self, columns: Columns) -> Columns:
        """Lay out the blocks; build the search table of levels, padded with infinity."""
        kinds = columns.kinds
        widths = [1] * len(kinds)
        for column, levels in zip(self.encoded, self.levels, strict=True):
            kinds[column], widths[column] = "onehot", len(levels)
        starts = [sum(widths[:i]) for i in range(len(widths))]
        most = max((len(levels) for levels in self.levels), default=0)
        table = torch.full((len(self.levels), most), torch.inf, dtype=torch.float64)
        for row, levels in zip(table, self.levels, strict=True):
            row[: len(levels)] = torch.tensor(levels, dtype=torch.float64)
        kept = [i for i in range(len(kinds)) if i not in set(self.encoded)]
        self._columns, self._table, self._width = columns, table, sum(widths)
        self._kept = torch.tensor(kept, dtype=torch.int64)
        self._kept_at = torch.tensor([starts[i] for i in kept], dtype=torch.int64)
        self._from = torch.tensor(self.encoded, dtype=torch.int64)
        self._at = torch.tensor([starts[i] for i in self.encoded], dtype=torch.int64)
        names: tuple[str, ...] = ()
        if columns.names:
            names = tuple(self._names(columns, widths))
        return Columns(merged(list(zip(kinds, widths, strict=True))), names)

    def _names(self, columns: Columns, widths: list[int]) -> list[str]:
        out: list[str] = []
        for i, name in enumerate(columns.names):
            if i in self.encoded:
                levels = self.levels[self.encoded.index(i)]
                out += [f"{name}={self._category(i, level)}" for level in levels]
            else:
                out.append(name)
        return out

    def _category(self, column: int, level: float) -> str:
        names = self._columns.categories[column] if self._columns.categories else ()
        return names[int(level)] if 0 <= level < len(names) else f"{level:g}"

    def apply(
        self, x: Shaped[Tensor, "batch n"], generator: Generator | None
    ) -> Float[Tensor, "batch m"]:
        """Zeros with a 1 in each block; other columns copied.

        Raises
        ------
        DataError
            If a row has a category that no training row has.
        """
        codes = x[:, self._from].double().T.contiguous()
        place = torch.searchsorted(self._table, codes).clamp_(max=self._table.shape[1] - 1)
        known = self._table.gather(1, place) == codes
        if not bool(known.all()):
            which, row = (int(i) for i in (~known).nonzero()[0])
            column = self.encoded[which]
            raise DataError(
                f"column {self._columns.label(column)} holds the category "
                f"'{self._category(column, float(codes[which, row]))}', which no training row has: "
                "remove such rows, or split with another seed."
            )
        out = torch.zeros((len(x), self._width), dtype=torch.float32)
        if self._kept.numel():
            kept = floating(x[:, self._kept])  # may be float64: a later step subtracts the mean
            out = out.to(kept.dtype)
            out[:, self._kept_at] = kept
        return out.scatter_(1, (place + self._at[:, None]).T, 1.0)

    def invert(self, y: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        """The level with the greatest value in each block; other columns copied."""
        x = y.new_zeros((len(y), len(self._kept) + len(self.encoded)))
        if self._kept.numel():
            x[:, self._kept] = y[:, self._kept_at]
        for column, start, levels in zip(self.encoded, self._at.tolist(), self.levels, strict=True):
            best = y[:, start : start + len(levels)].argmax(1)
            x[:, column] = torch.tensor(levels, dtype=y.dtype)[best]
        return x

    def spread(self, sigma: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """Noise of the columns that are copied; blocks have none."""
        out = sigma.new_zeros(self._width)
        out[self._kept_at] = sigma[self._kept]
        return out
