"""Checks of plain arguments: numbers, whole or real, and switches, of Python's own types or of NumPy's."""

import math
import operator
from numbers import Real
from typing import Any

import numpy as np

from gibbsian.errors import GibbsianError


def whole(value: Any, what: str, least: int = 1, error: type[GibbsianError] = GibbsianError) -> int:
    """Return `value` as an int if it is a whole number of at least `least`.

    Raises
    ------
    GibbsianError
        Or the class of `error`, in a sentence about `what`, if it is not.
    """
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least:
        raise error(f"{what} must be a whole number of at least {least}, and {value!r} is not.")
    return found


def number(value: Any, what: str, error: type[GibbsianError] = GibbsianError) -> float:
    """Return `value` as a float if it is a finite number.

    Raises
    ------
    GibbsianError
        Or the class of `error`, in a sentence about `what`, if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise error(f"{what} must be a finite number, and {value!r} is not.")
    return float(value)


def switch(value: Any, what: str, error: type[GibbsianError] = GibbsianError) -> bool:
    """Return `value` as a bool if it is one.

    Raises
    ------
    GibbsianError
        Or the class of `error`, in a sentence about `what`, if it is not.
    """
    if not isinstance(value, bool | np.bool_):
        raise error(f"{what} must be True or False, and {value!r} is not.")
    return bool(value)
