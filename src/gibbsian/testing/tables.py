"""The truth about small machines: all states listed, with quadrature nodes for real units.

Nothing here uses a log-partition, a conditional mean or a sampler of the library: only the energy,
the list of values of a block, and which values a domain refuses.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Generator, Tensor

from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamps, State
from gibbsian.testing.perturbed import perturbed
from gibbsian.units import base as unit
from gibbsian.units.base import Units

MAX_STATES = 4_000_000

# Densities are followed down to e^-45 of their peak.
_DEPTH = 45.0
_NODES = 48
_FINE_NODES = 160
_ROUNDS = 6


@dataclass(frozen=True)
class Grid:
    """Values of one block, (K, width), with the logarithms of their quadrature weights."""

    values: Tensor
    log_weights: Tensor
    real: bool = False


@dataclass(frozen=True)
class Table:
    """All states of a machine, or the nodes of a quadrature over them.

    Attributes
    ----------
    states : tuple of Tensor (states, n_l)
        One tensor a layer, in float64.
    log_weights : Tensor (states,)
        Logarithm of each state's quadrature weight: 0 where all units are finite.
    energies : Tensor (states,)
        E(s) of each state.
    grids : tuple of tuple of Grid
        The blocks of each layer; states run over their product, the last one fastest.
    """

    states: State
    log_weights: Tensor
    energies: Tensor
    grids: tuple[tuple[Grid, ...], ...]

    @cached_property
    def logits(self) -> Tensor:
        """Logarithm of each state's unnormalised probability."""
        return self.log_weights - self.energies

    @property
    def log_z(self) -> float:
        """Log Z of the machine."""
        return float(self.logits.logsumexp(dim=0))

    @cached_property
    def probabilities(self) -> Tensor:
        """Probability of each state; they sum to 1."""
        return self.logits.softmax(dim=0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each block, over all layers."""
        return tuple(len(g.values) for layer in self.grids for g in layer)

    def mean(self, values: Tensor) -> Tensor:
        """Return the expectation of `values`, (states, …)."""
        return torch.tensordot(self.probabilities, values.double(), dims=1)

    def log_marginal(self, block: int) -> Tensor:
        """Return the logits of one block's values, the others summed out."""
        others = [i for i in range(len(self.shape)) if i != block]
        logits = self.logits.reshape(self.shape)
        return logits.logsumexp(dim=others) if others else logits


def enumerate_states(
    machine: BoltzmannMachine, clamps: Clamps | None = None, nodes: int = _NODES
) -> Table:
    """List all states of a small machine; real units stand on Gauss–Legendre nodes.

    The range of a real unit's nodes is found by following its marginal density down to e^-45 of its
    peak, so integrals are good to about 8 digits for smooth densities.

    Parameters
    ----------
    machine : BoltzmannMachine
        Of proper and small size: the number of states, with `nodes` for each real unit, is at most
        `MAX_STATES`.
    clamps : mapping of int to Clamp, optional
        Blocks that stay at a value; masks and values of shape (n,).
    nodes : int
        Nodes of each real unit.

    Raises
    ------
    GibbsianError
        If the machine has too many states.
    """
    machine = _double(machine)
    grids = [layer_grids(u, i, clamps) for i, u in enumerate(machine.layers)]
    if not any(g.real for layer in grids for g in layer):
        return tabulate(machine, grids)
    table = tabulate(machine, _respread(grids, nodes // 2))
    for count in (nodes // 2, nodes, nodes):
        table = tabulate(machine, _respread(_narrowed(table), count))
    return table


def _double(machine: BoltzmannMachine) -> BoltzmannMachine:
    wide = all(p.dtype == torch.float64 for p in machine.parameters())
    return machine if wide else perturbed(machine, scale=0.0)


def tabulate(machine: BoltzmannMachine, grids: Sequence[Sequence[Grid]]) -> Table:
    """List the product of the blocks' values with energies."""
    total = math.prod(len(g.values) for layer in grids for g in layer)
    if total > MAX_STATES:
        raise GibbsianError(f"{total:,} states are too many to list; use a smaller machine.")
    flat = [g for layer in grids for g in layer]
    index = torch.cartesian_prod(*[torch.arange(len(g.values)) for g in flat])
    index = index.reshape(total, len(flat))
    columns = [g.values[index[:, k]] for k, g in enumerate(flat)]
    weights = torch.stack([g.log_weights[index[:, k]] for k, g in enumerate(flat)]).sum(dim=0)
    states, first = [], 0
    for layer in grids:
        states.append(torch.cat(columns[first : first + len(layer)], dim=1))
        first += len(layer)
    with torch.no_grad():
        energies = machine.energy(states)
    return Table(tuple(states), weights, energies, tuple(tuple(layer) for layer in grids))


def layer_grids(units: Units, layer: int = 0, clamps: Clamps | None = None) -> list[Grid]:
    """Return the blocks of a layer: all values, one held value, or a wide real range."""
    grids, first = [], 0
    for block, width in zip(units.domain.blocks(), units.domain.widths, strict=True):
        part = slice(first, first + width)
        if clamps and layer in clamps and bool(clamps[layer].mask[part].any()):
            grids.append(_fixed(clamps[layer].value[part]))
        elif block is None:
            low, high = start_range(units, first)
            grids.append(Grid(torch.tensor([[low], [high]]).double(), torch.zeros(2), real=True))
        else:
            grids.append(Grid(block.double(), torch.zeros(len(block)).double()))
        first += width
    return grids


def _fixed(value: Tensor) -> Grid:
    return Grid(value.double()[None], torch.zeros(1).double())


def lower_end(units: Units, column: int) -> float:
    """Return where a real column's values begin: 0 if the domain refuses −1, else −∞."""
    row = units.domain.noise(1, Generator().manual_seed(0)).double()
    row[0, column] = -1.0
    try:
        units.domain.check(row)
    except DataError:
        return 0.0
    return -math.inf


def start_range(units: Units, column: int) -> tuple[float, float]:
    """Return a range that surely holds a real column's density, for `enumerate_states` to narrow."""
    reach = 60.0 / math.sqrt(float(unit.tail_precision(units)[column]))
    return max(lower_end(units, column), -reach), reach


def _narrowed(table: Table) -> list[list[Grid]]:
    """Narrow all real blocks to where their marginal density is not negligible."""
    out: list[list[Grid]] = []
    block = 0
    for layer in table.grids:
        out.append([])
        for g in layer:
            out[-1].append(_narrow(g, table.log_marginal(block)) if g.real else g)
            block += 1
    return out


def _respread(grids: Sequence[Sequence[Grid]], count: int) -> list[list[Grid]]:
    """Put nodes between the ends of all real blocks."""
    return [[_spread(g, count) if g.real else g for g in layer] for layer in grids]


def _spread(grid: Grid, count: int) -> Grid:
    """Put Gauss–Legendre nodes between the first and the last value."""
    x, log_w = legendre(float(grid.values[0]), float(grid.values[-1]), count)
    return Grid(x[:, None], log_w, real=True)


@functools.cache
def gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss–Legendre nodes and weights on [−1, 1]."""
    return np.polynomial.legendre.leggauss(count)


def legendre(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    """Return Gauss–Legendre nodes on [low, high] and the logarithms of their weights."""
    x, w = gauss(count)
    nodes = low + (high - low) * (torch.from_numpy(x) + 1) / 2
    return nodes, torch.from_numpy(w).log() + math.log((high - low) / 2)


def _narrow(grid: Grid, logits: Tensor) -> Grid:
    """Keep the range in which the density is not negligible, and one node on either side.

    Where the first node is kept the old end is kept, which Gauss–Legendre nodes do not include.
    """
    x = grid.values[:, 0]
    density = logits - grid.log_weights
    kept = (density > density.max() - _DEPTH).nonzero().flatten()
    first, last = int(kept[0]), int(kept[-1])
    # The ends of a Gauss–Legendre range lie symmetrically outside its nodes.
    span = float(x[-1] - x[0])
    ratio = _outer(len(x))
    low = float(x[first - 1]) if first else float(x[0]) - ratio * span
    high = float(x[last + 1]) if last + 1 < len(x) else float(x[-1]) + ratio * span
    return Grid(torch.tensor([[low], [high]]).double(), torch.zeros(2).double(), real=True)


def _outer(count: int) -> float:
    """Return the distance from an end to the first node, over the distance of the outer nodes."""
    x, _ = gauss(count)
    return float((1 + x[0]) / (x[-1] - x[0]))


def quadrature(
    log_density: Callable[[Tensor], Tensor], low: float = -math.inf
) -> tuple[Tensor, Tensor]:
    """Return nodes over a one-dimensional density, and the logarithms of their weights.

    The density is found on a grid that is fine near 0 and reaches ±10⁹, then the range is narrowed
    to where it exceeds e^-45 of its peak.

    Parameters
    ----------
    log_density : callable
        The logarithm of a density at points (m,), up to a constant.
    low : float
        Where the values begin.
    """
    x = torch.sinh(torch.linspace(-42, 42, 8001).double()) * 1e-9
    x = x[x >= low]
    for _ in range(_ROUNDS):
        values = log_density(x)
        kept = (values > values.max() - _DEPTH).nonzero().flatten()
        first, last = max(int(kept[0]) - 1, 0), min(int(kept[-1]) + 1, len(x) - 1)
        x = torch.linspace(float(x[first]), float(x[last]), 1001).double()
    return legendre(float(x[0]), float(x[-1]), _FINE_NODES)
