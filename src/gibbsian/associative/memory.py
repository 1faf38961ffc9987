"""The classical associative memory: spins that fall into stored patterns (Hopfield 1982).

It has no temperature and is not trained by likelihood; `gibbsian.hopfield` is the same energy as a
Boltzmann machine, with one Gaussian hidden unit a pattern (`as_machine` goes from one to the other).
"""

import warnings
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number, whole
from gibbsian.errors import DataError, GibbsianError, GibbsianWarning
from gibbsian.machine import BoltzmannMachine
from gibbsian.models import hopfield
from gibbsian.samplers.base import as_rows
from gibbsian.units import Spin

FIXED_POINT, TWO_CYCLE, LIMIT = "fixed point", "two-cycle", "limit"
# Fields this small against the couplings of their unit are ties, which rounding must not decide.
_TIE = 1e-9


@final
@dataclass(frozen=True)
class Recall:
    """Where recall ended, one row a cue.

    Attributes
    ----------
    states : Tensor (rows, n)
        The last states.
    before : Tensor (rows, n)
        Those one sweep or step earlier: the other half of a two-cycle.
    energies : Tensor (steps + 1, rows)
        E of the cues and after each sweep or step; a row that has ended repeats its last value.
    outcomes : tuple of str
        ``fixed point``, ``two-cycle`` (synchronous recall only) or ``limit`` for each row.
    """

    states: Float[Tensor, "rows n"]
    before: Float[Tensor, "rows n"]
    energies: Float[Tensor, "times rows"]
    outcomes: tuple[str, ...]


@final
class AssociativeMemory:
    """Spins s ∈ {−1, +1} with E(s) = −½ sᵀWs + θᵀs, which recall patterns by descending E.

    A spin takes the sign of Σ_j W_ij s_j − θ_i, and keeps its value where that is 0. One spin at a
    time, E never rises, so that recall ends in a local minimum; all at once, it ends in a fixed
    point or goes to and fro between two states (Goles & Olivos 1980).

    Parameters
    ----------
    couplings : Tensor (n, n)
        W, symmetric with zero diagonal; `hebbian` and `pseudo_inverse` make it from patterns.
    thresholds : Tensor (n,), optional
        θ; 0 unless given.

    Raises
    ------
    GibbsianError
        If W is not symmetric with zero diagonal, or sizes disagree.

    Examples
    --------
    >>> import torch, gibbsian as gb
    >>> pattern = torch.tensor([[1.0, -1, 1, -1, 1]])
    >>> memory = gb.AssociativeMemory.hebbian(pattern)
    >>> memory.recall([[1.0, -1, 1, -1, -1]]).states
    tensor([[ 1., -1.,  1., -1.,  1.]], dtype=torch.float64)
    """

    def __init__(self, couplings: Any, thresholds: Any = None) -> None:
        w = as_rows(couplings, "Couplings are a square table of numbers").double()
        if w.ndim != 2 or w.shape[0] != w.shape[1] or not len(w):
            shape = "×".join(map(str, w.shape))
            raise GibbsianError(f"The couplings of a memory are a square table, not {shape}.")
        if not bool(torch.isfinite(w).all()):
            raise GibbsianError("The couplings hold NaN or infinite values; give finite ones.")
        if bool((w.diagonal() != 0).any()) or not torch.allclose(w, w.T, rtol=1e-9):
            raise GibbsianError(
                "Recall descends an energy only with symmetric couplings and a zero diagonal; give "
                "(W + Wᵀ)/2 without its diagonal."
            )
        theta = (
            w.new_zeros(len(w))
            if thresholds is None
            else as_rows(thresholds, "Thresholds are numbers")
        )
        if tuple(theta.shape) != (len(w),):
            raise GibbsianError(
                f"{len(w)} spins need {len(w)} thresholds, not {'×'.join(map(str, theta.shape))}."
            )
        self.couplings, self.thresholds = w, theta.to(w)
        self._tie = _TIE * (w.abs().sum(dim=1) + self.thresholds.abs())

    @classmethod
    def hebbian(cls, patterns: Any, thresholds: Any = None) -> "AssociativeMemory":
        """Store patterns by Hebb's rule, W = ΞᵀΞ/n without its diagonal (Hopfield 1982).

        Random patterns are recalled, with a few wrong spins, up to about 0.138 n of them (Amit,
        Gutfreund & Sompolinsky 1985).

        Parameters
        ----------
        patterns : array (patterns, n)
            Values −1 and +1.

        Raises
        ------
        DataError
            If there are no patterns, or they hold other values.
        """
        xi = spins(patterns, "The patterns")
        w = xi.T @ xi / xi.shape[1]
        return cls(w.fill_diagonal_(0), thresholds)

    @classmethod
    def pseudo_inverse(cls, patterns: Any, thresholds: Any = None) -> "AssociativeMemory":
        """Store patterns by projection, W = Ξ⁺Ξ without its diagonal (Personnaz et al. 1985).

        Ξ⁺ is the Moore–Penrose inverse. W ξ = (1 − P_ii) ξ_i at each stored pattern, with P = Ξ⁺Ξ the
        projection onto their span and P_ii ≤ 1, so that every one is a fixed point; this needs fewer
        independent patterns than spins, since W = 0 from n of them on.

        Parameters
        ----------
        patterns : array (patterns, n)
            Values −1 and +1.

        Raises
        ------
        DataError
            If there are no patterns, or they hold other values.

        Warns
        -----
        GibbsianWarning
            If the patterns are linearly dependent.
        """
        xi = spins(patterns, "The patterns")
        # P from the right singular vectors: exact to rounding, whatever the rank.
        _, values, right = torch.linalg.svd(xi, full_matrices=False)
        rank = int((values > values[0] * max(xi.shape) * torch.finfo(values.dtype).eps).sum())
        if rank < len(xi):
            warnings.warn(
                f"The {len(xi)} patterns are linearly dependent (rank {rank}), so the Moore–Penrose "
                "inverse stores the space that they span: their combinations are recalled as well.",
                GibbsianWarning,
                stacklevel=2,
            )
        w = right[:rank].T @ right[:rank] if rank < xi.shape[1] else torch.eye(xi.shape[1]).to(xi)
        return cls(((w + w.T) / 2).fill_diagonal_(0), thresholds)

    @property
    def size(self) -> int:
        """Number of spins n."""
        return len(self.thresholds)

    def energy(self, states: Any) -> Float[Tensor, " rows"]:
        """Return E(s) = −½ sᵀWs + θᵀs of each row."""
        return self._energy(self._checked(states, "The states"))

    def _energy(self, s: Float[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
        return -0.5 * ((s @ self.couplings) * s).sum(dim=1) + s @ self.thresholds

    def updated(self, s: Float[Tensor, "rows n"], unit: int) -> Float[Tensor, " rows"]:
        """Return the new values of one spin from the states of all."""
        field = s @ self.couplings[unit] - self.thresholds[unit]
        return torch.where(field.abs() <= self._tie[unit], s[:, unit], field.sign())

    def recall(
        self,
        cues: Any,
        generator: Generator | int | None = None,
        synchronous: bool = False,
        limit: int = 100,
    ) -> Recall:
        """Let states fall into the memory's minima.

        Parameters
        ----------
        cues : array (rows, n)
            Where to start, values −1 and +1.
        generator : torch.Generator or int
            Draws the order in which a sweep visits the spins, anew for each sweep and the same for
            all rows; seed 0 unless given. Synchronous recall has no randomness.
        synchronous : bool
            All spins at once, instead of one after the other.
        limit : int
            Most sweeps (each spin once) or synchronous steps.

        Raises
        ------
        DataError
            If the cues are no rows of n values −1 and +1.
        """
        s = self._checked(cues, "The cues").clone()
        limit = whole(limit, "The limit of recall")
        if not isinstance(generator, Generator):
            seed = whole(0 if generator is None else generator, "The seed of recall", 0)
            generator = Generator().manual_seed(seed)
        before, outcomes = s.clone(), [LIMIT] * len(s)
        energies, open_rows = [self._energy(s)], torch.arange(len(s))
        for _ in range(limit):
            old = s[open_rows]
            new = self._all_at_once(old) if synchronous else self._sweep(old, generator)
            still = (new == old).all(dim=1)
            cycle = (new == before[open_rows]).all(dim=1) & ~still & synchronous
            before[open_rows], s[open_rows] = old, new
            energies.append(self._energy(s))
            for mask, name in ((still, FIXED_POINT), (cycle, TWO_CYCLE)):
                for row in open_rows[mask].tolist():
                    outcomes[row] = name
            open_rows = open_rows[~(still | cycle)]
            if not len(open_rows):
                break
        return Recall(s, before, torch.stack(energies), tuple(outcomes))

    def _all_at_once(self, s: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
        field = s @ self.couplings.T - self.thresholds
        return torch.where(field.abs() <= self._tie, s, field.sign())

    def _sweep(self, s: Float[Tensor, "rows n"], generator: Generator) -> Float[Tensor, "rows n"]:
        s = s.clone()
        for i in torch.randperm(self.size, generator=generator).tolist():
            s[:, i] = self.updated(s, i)
        return s

    def _checked(self, states: Any, what: str) -> Float[Tensor, "rows n"]:
        s = spins(states, what)
        if s.shape[1] != self.size:
            raise DataError(
                f"{what} have {s.shape[1]} spins and the memory {self.size}; give rows of its size."
            )
        return s


def spins(rows: Any, what: str) -> Float[Tensor, "rows n"]:
    """Return rows of −1 and +1 as float64; a single row may come flat.

    Raises
    ------
    DataError
        If there are none, or they hold other values.
    """
    x = as_rows(rows, f"{what} are rows of −1 and +1").double()
    x = x[None] if x.ndim == 1 and len(x) else x
    if x.ndim != 2 or not x.numel():
        shape = "×".join(map(str, x.shape))
        raise DataError(f"{what} have shape {shape}; give at least one row of −1 and +1.")
    if bool((x.abs() != 1).any()):
        bad = float(x[x.abs() != 1][0])
        raise DataError(
            f"{what} hold {bad:g}, and spins take −1 and +1 only; bits become spins as 2x − 1."
        )
    return x


def overlap(states: Any, patterns: Any) -> Float[Tensor, " rows"]:
    """Return m = s·ξ/n of each state with the pattern of the same row: 1 where they are equal.

    Raises
    ------
    DataError
        If the two differ in shape, or hold other values than −1 and +1.
    """
    s, xi = spins(states, "The states"), spins(patterns, "The patterns")
    if s.shape != xi.shape:
        raise DataError(
            f"States {tuple(s.shape)} and patterns {tuple(xi.shape)} differ in shape; give one "
            "pattern a state."
        )
    return (s * xi).mean(dim=1)


def as_machine(patterns: Any, beta: float = 1.0) -> BoltzmannMachine:
    """Return the Boltzmann machine of Hebb's energy at inverse temperature β.

    Spins with one Gaussian hidden unit a pattern and couplings √β ξ/√n: summing those out gives
    −½ β Σ_μ (ξ_μ·s)²/n, which is β times the energy of `AssociativeMemory.hebbian` up to a constant
    (the diagonal's β p/2 and the p Gaussian integrals; Barra et al. 2012).

    Raises
    ------
    DataError
        If there are no patterns, or they hold other values than −1 and +1.
    """
    xi = spins(patterns, "The patterns")
    beta = number(beta, "The inverse temperature")
    if beta <= 0:
        raise GibbsianError(f"The inverse temperature must be positive, and {beta:g} is not.")
    machine = hopfield(Spin(xi.shape[1]), len(xi)).double()
    with torch.no_grad():
        machine.joints[0].weight.copy_(xi.T * (beta / xi.shape[1]) ** 0.5)
    return machine
