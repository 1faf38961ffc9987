"""The label units of a deep belief network's top machine: a one-of-K block behind the pen layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gibbsian.arguments import whole
from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import Mixed, Softmax, Units
from gibbsian.units import base as unit

_NONE = "This network was trained without labels, so it {}; train one with labels{}."


class LabelBlock:
    """Which label each column of the block stands for, and what the top machine says of labels.

    Parameters
    ----------
    top : BoltzmannMachine
        With one hidden layer.
    classes : sequence of int
        The labels; none for a machine without a block.

    Attributes
    ----------
    pen : int
        Size of the pen layer, which comes first in the top machine's visible layer.

    Raises
    ------
    GibbsianError
        If machine and classes do not fit.
    """

    def __init__(self, top: BoltzmannMachine, classes: Sequence[int]) -> None:
        self.top = top
        self.classes = tuple(whole(c, "A class", -(2**63)) for c in classes)
        _check(top, self.classes)
        self.pen = top.sizes[0] - len(self.classes)

    @property
    def units(self) -> Units:
        """The units of the pen layer alone."""
        low = self.top.layers[0]
        return unit.members(low)[0] if self.classes else low

    def hot(
        self, labels: Int64[Tensor, " rows"] | None, what: str
    ) -> Float[Tensor, "rows classes"]:
        """Turn labels into states of the block.

        Raises
        ------
        DataError
            If there are none, or one is none of the classes.
        """
        if labels is None:
            raise DataError(
                f"This network has {len(self.classes)} classes, and {what} have no labels; give labels, "
                "or train a network without them."
            )
        hit = labels[:, None] == torch.tensor(self.classes, device=labels.device)
        if not bool(hit.any(dim=1).all()):
            bad = int(labels[~hit.any(dim=1)][0])
            known = ", ".join(map(str, self.classes))
            raise DataError(
                f"{what[0].upper() + what[1:]} hold the label {bad}, which this network never saw; its "
                f"classes are {known}."
            )
        return hit.to(next(self.top.parameters()))

    def read(self, visible: Float[Tensor, "rows columns"]) -> Int64[Tensor, " rows"] | None:
        """Return the labels of states of the top machine's visible layer; None without classes."""
        if not self.classes:
            return None
        classes = torch.tensor(self.classes, device=visible.device)
        return classes[visible[:, self.pen :].argmax(dim=1)]

    def held(
        self, label: int | Sequence[int] | Tensor, n: int
    ) -> tuple[Bool[Tensor, " columns"], Float[Tensor, "n columns"]]:
        """Return mask and values that hold the block at a label, or each of `n` chains at its own.

        Raises
        ------
        GibbsianError
            If there is no block, or the labels are not one or `n` whole numbers.
        DataError
            If one is none of the classes.
        """
        if not self.classes:
            raise GibbsianError(_NONE.format("has no classes to hold", ", or leave the class out"))
        wrong = f"The class to hold is one whole number or {n} of them, not {label!r:.60}."
        try:
            labels = torch.as_tensor(label).reshape(-1)
        except (TypeError, ValueError, RuntimeError):
            raise GibbsianError(wrong) from None
        whole_numbers = not (labels.is_floating_point() or labels.dtype is torch.bool)
        if not whole_numbers or len(labels) not in (1, n):
            raise GibbsianError(wrong)
        hot = self.hot(
            labels.long().to(next(self.top.parameters()).device), "the samples asked for"
        )
        mask = torch.zeros(self.top.sizes[0], dtype=torch.bool)
        mask[self.pen :] = True
        return mask, torch.cat([hot.new_zeros(len(hot), self.pen), hot], dim=1).expand(n, -1)

    @torch.no_grad()
    def log_weights(self, pen: Float[Tensor, "rows pen"]) -> Float[Tensor, "rows classes"]:
        """Return −F(s_P, y) of every class, F the free energy of the top machine's visible layer.

        Raises
        ------
        GibbsianError
            If there is no block.
        """
        if not self.classes:
            raise GibbsianError(_NONE.format("cannot classify", ""))
        base, shift, hot = self._fields(pen)
        columns = []
        for f, label in zip(shift, hot, strict=True):
            row = torch.cat([pen, label.expand(len(pen), -1)], dim=1)
            columns.append(-self.top.marginal_energy((row,), fields={1: base + f}))
        return torch.stack(columns, dim=1)

    @torch.no_grad()
    def every(
        self, pen: Float[Tensor, "rows pen"]
    ) -> tuple[Float[Tensor, "pairs columns"], Float[Tensor, "pairs hidden"]]:
        """Return the top machine's visible layer for each row with each label, and its fields on the top."""
        base, shift, hot = self._fields(pen)
        visible = torch.cat([pen.repeat_interleave(len(hot), 0), hot.repeat(len(pen), 1)], dim=1)
        return visible, (base[:, None] + shift).flatten(0, 1)

    def _fields(self, pen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the fields of pen states alone, those of each label alone, and the labels' states."""
        k, up, full = len(self.classes), self.top.joints[0].up, next(self.top.parameters()).dtype
        hot = torch.eye(k, dtype=pen.dtype, device=pen.device)
        rows = torch.cat([pen, pen.new_zeros(len(pen), k)], dim=1)
        labels = torch.cat([hot.new_zeros(k, self.pen), hot], dim=1)
        # Products may be in a narrower dtype than what they are added up in.
        return up(rows).to(full), up(labels).to(full), hot


def with_labels(units: Units, classes: int) -> Units:
    """Put a block of one-of-`classes` label units behind the units of a pen layer."""
    return Mixed([units, Softmax(1, whole(classes, "The number of classes", 2))])


def _check(top: BoltzmannMachine, classes: Sequence[int]) -> None:
    if len(top.layers) != 2:
        raise GibbsianError(
            f"The top of a deep belief network is a machine with one hidden layer, not with "
            f"{len(top.layers) - 1}."
        )
    if len(set(classes)) < len(classes) or len(classes) == 1:
        raise GibbsianError(
            f"Labels need at least two classes, each named once, not {list(classes)}."
        )
    parts = [part.size for part in unit.members(top.layers[0])]
    if classes and (len(parts) != 2 or parts[1] != len(classes)):
        raise GibbsianError(
            f"The top machine's visible layer must end in a block of {len(classes)} label units behind "
            "the pen layer; build it with belief.with_labels."
        )
