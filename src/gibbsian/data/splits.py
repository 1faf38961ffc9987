"""Seeded orders and splits that depend on integers alone, so that no upgrade can move them."""

from __future__ import annotations

import numpy as np

from gibbsian.errors import DataError

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_SPLIT = 1  # the key of the split, apart from the keys of the epochs


def permutation(n: int, *key: int) -> np.ndarray:
    """A permutation of 0 … n-1 that is a pure function of ``n`` and the integers of ``key``.

    Row i gets the 64-bit word mix(k + i g), with mix the SplitMix64 finaliser (Steele, Lea and
    Flood 2014), k a hash of ``key`` and g odd, and the rows are sorted by their words. The words
    are distinct, since mix is a bijection, so any sorting algorithm gives the same order: a split
    stored in a run stays the same across versions of every library.

    Parameters
    ----------
    n : number of rows.
    *key : integers of any size, such as a seed and an epoch.

    Returns
    -------
    int64 array of shape (n,).
    """
    state = 0
    for word in key:
        state = _mix_int((state + _GOLDEN) ^ _mix_int(word & _MASK))
    words = np.arange(n, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(state)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return np.argsort(words).astype(np.int64, copy=False)


def _mix_int(z: int) -> int:
    """SplitMix64's finaliser on one Python integer."""
    z = (z + _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def part_size(value: float, n: int, role: str) -> int:
    """The number of rows that ``value`` (a fraction in [0, 1) or a whole count) asks of ``n`` rows.

    Raises
    ------
    DataError
        If ``value`` is neither, or leaves no row for training.
    """
    # 1.0 is refused: whoever writes it means all the rows, and 1 means a single one.
    whole = isinstance(value, int) or (float(value).is_integer() and value != 1)
    if isinstance(value, bool) or not 0 <= value < float("inf") or (not whole and value >= 1):
        raise DataError(
            f"{role} = {value!r} is not a share of the data: give a fraction from 0 up to, but not "
            "including, 1, or a whole number of rows."
        )
    size = int(value) if whole else round(value * n)
    if size >= n:
        raise DataError(
            f"{role} = {value!r} takes {size} of {n} rows and leaves none for training: ask for "
            "fewer."
        )
    return size


def split_rows(n: int, seed: int, validation: float = 0, test: float = 0) -> dict[str, np.ndarray]:
    """Disjoint row numbers for "train", "validation" and "test", all rows used once.

    The rows are put in the order ``permutation(n, seed, 1)``; the test part is its head, then comes
    validation, then train. So the test rows don't move when the validation part is resized.

    Parameters
    ----------
    n : number of rows.
    seed : any integer.
    validation, test : fractions in [0, 1) or counts.

    Returns
    -------
    dict of int64 arrays, in the order of the permutation (empty where nothing was asked).

    Raises
    ------
    DataError
        If a share is impossible, or both together leave no row for training.
    """
    held = part_size(test, n, "test")
    valid = part_size(validation, n, "validation")
    if held + valid >= n:
        raise DataError(
            f"validation ({valid}) and test ({held}) together take all {n} rows and leave none for "
            "training: ask for fewer."
        )
    order = permutation(n, seed, _SPLIT)
    return {
        "train": order[held + valid :],
        "validation": order[held : held + valid],
        "test": order[:held],
    }
