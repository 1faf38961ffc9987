"""Where the path of a sampler begins: a reference machine, or rows that one is fitted to."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gibbsian.machine import BoltzmannMachine
from gibbsian.path import BaseRatePath, check_start, data_statistics, reference
from gibbsian.samplers.base import as_rows


class Origin:
    """Makes the path to a machine, which may move between calls.

    Parameters
    ----------
    given : BoltzmannMachine or Tensor (rows, visible)
        A machine with W = 0, or data rows that the visible units of one are fitted to; its other units are
        then the machine's own.
    what : str
        Whose it is, for the sentence that refuses anything else.

    Raises
    ------
    GibbsianError
        If it is neither.
    """

    def __init__(self, given: BoltzmannMachine | Float[Tensor, "rows n"] | Any, what: str) -> None:
        self._reference = given if isinstance(given, BoltzmannMachine) else None
        sentence = f"The reference of {what} is a machine with W = 0 or data rows to fit one to"
        self._rows = None if self._reference else as_rows(given, sentence)
        self._statistics: tuple[Mapping[str, Tensor], int] | None = None
        self._known: BaseRatePath | None = None

    def path(self, machine: BoltzmannMachine) -> BaseRatePath:
        """Return the path to the machine as it is now.

        Raises
        ------
        GibbsianError
            If the reference does not fit the machine.
        """
        path = self._known
        if path is None or path.target is not machine or not _alike(path.start, machine):
            path = BaseRatePath(self._start(machine), machine)
        if self._rows is not None:
            # Nothing is kept of the machine that the rows were first seen with, so runs resume bit for bit.
            for ours, theirs in zip(path.start.layers[1:], machine.layers[1:], strict=True):
                ours.load_state_dict(theirs.state_dict())
        path.refresh()
        self._known = path
        return path

    def _start(self, machine: BoltzmannMachine) -> BoltzmannMachine:
        """Return the reference that was given, or one fitted to the rows that were."""
        if self._reference is not None:
            check_start(machine, self._reference)
            return self._reference
        assert self._rows is not None
        if self._statistics is None:
            machine.check(self._rows, "the rows of the reference")
            self._statistics = data_statistics(machine.layers[0], [self._rows])
        return reference(machine, self._statistics)


def _alike(a: BoltzmannMachine, b: BoltzmannMachine) -> bool:
    one, other = next(a.parameters()), next(b.parameters())
    return a.sizes == b.sizes and one.dtype == other.dtype and one.device == other.device
