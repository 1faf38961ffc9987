"""Generated sets: bars and stripes, and equilibrium samples of the two-dimensional Ising model."""

from __future__ import annotations

import math

import numpy as np

from gibbsian.errors import DataError

_SITES = 1_000_000  # spins updated together, to bound memory


def bars_and_stripes(n: int = 4, rows: int = 2000, seed: int = 0) -> np.ndarray:
    """Patterns drawn uniformly from the 2^(n+1) - 2 distinct bars and stripes on an n x n grid.

    A pattern is constant along each row (2^n of them) or along each column (2^n - 2 more: the empty
    and the full grid are both). MacKay (2003), Information Theory, Inference, and Learning
    Algorithms, chapter 43.

    Parameters
    ----------
    n : side of the grid, 1 to 30.
    rows : number of patterns drawn; 0 gives each distinct pattern once, in a fixed order.
    seed : of the draw.

    Returns
    -------
    bool array (rows, n, n).

    Raises
    ------
    DataError
        If a parameter is out of range.
    """
    if not 1 <= n <= 30:
        raise DataError(f"bars-and-stripes needs a side n from 1 to 30, and n is {n}.")
    if rows < 0 or (rows == 0 and n > 12):
        raise DataError(
            f"bars-and-stripes can't list {rows} rows at n = {n}: ask for at least one row, or for "
            "0 (each pattern once) with n up to 12."
        )
    count = 2 ** (n + 1) - 2
    code = np.random.default_rng(seed).integers(count, size=rows) if rows else np.arange(count)
    along_columns = code >= 2**n
    code = np.where(along_columns, code - 2**n + 1, code)
    lines = (code[:, None] >> np.arange(n)) & 1 == 1
    grid = np.broadcast_to(lines[:, :, None], (len(code), n, n))
    return np.where(along_columns[:, None, None], grid.transpose(0, 2, 1), grid)


def ising2d(
    L: int = 8, T: float = 2.5, rows: int = 2000, seed: int = 0, sweeps: int = 50
) -> np.ndarray:
    """Equilibrium samples of the Ising model on an L x L torus, each from a chain of its own.

    p(s) ∝ exp(Σ_<ij> s_i s_j / T), s_i = ±1, by the cluster moves of Swendsen and Wang (1987):
    equal neighbours are bonded with probability 1 - exp(-2/T), and each connected cluster takes a
    fresh random sign. The chains start from random spins and make ``sweeps`` moves; the move
    decorrelates within about ten even at the critical temperature T = 2.269 for L up to 32.

    Parameters
    ----------
    L : side, at least 3 (on a smaller torus neighbours coincide).
    T : temperature in units of the coupling over Boltzmann's constant, above 0.
    rows : number of independent samples.
    seed : of the chains.
    sweeps : cluster moves of each chain.

    Returns
    -------
    int8 array (rows, L, L) of -1 and +1.

    Raises
    ------
    DataError
        If a parameter is out of range.
    """
    if L < 3 or rows < 1 or sweeps < 1 or not 0 < T < math.inf:
        raise DataError(
            f"ising2d needs L of at least 3, T above 0, and rows and sweeps of at least 1, and got "
            f"L = {L}, T = {T}, rows = {rows}, sweeps = {sweeps}."
        )
    generator = np.random.default_rng(seed)
    size = max(1, _SITES // (L * L))
    parts = [
        _swendsen_wang(L, T, min(size, rows - done), sweeps, generator)
        for done in range(0, rows, size)
    ]
    return np.concatenate(parts)


def _swendsen_wang(
    L: int, T: float, rows: int, sweeps: int, generator: np.random.Generator
) -> np.ndarray:
    """``sweeps`` cluster moves of ``rows`` chains at once, as one graph of rows·L² sites."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    sites = rows * L * L
    place = np.arange(sites, dtype=np.int32).reshape(rows, L, L)
    neighbour = np.stack([np.roll(place, -1, axis) for axis in (1, 2)]).reshape(2, sites)
    bond = -math.expm1(-2 / T)
    s = _signs(sites, generator)
    for _ in range(sweeps):
        bonded = (s == s[neighbour]) & (generator.random((2, sites), dtype=np.float32) < bond)
        direction, here = np.nonzero(bonded)
        ones = np.ones(len(here), dtype=np.int8)
        graph = csr_array((ones, (here, neighbour[direction, here])), shape=(sites, sites))
        clusters, cluster = connected_components(graph, directed=False)
        s = _signs(clusters, generator)[cluster]
    return s.reshape(rows, L, L)


def _signs(n: int, generator: np.random.Generator) -> np.ndarray:
    """Random signs, int8, of shape (n,)."""
    return generator.integers(0, 2, n, dtype=np.int8) * np.int8(2) - np.int8(1)
