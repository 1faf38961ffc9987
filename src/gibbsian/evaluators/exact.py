"""The partition function of small machines, exactly: one parity enumerated, the other summed."""

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gibbsian.errors import GibbsianError
from gibbsian.evaluators.blocks import runs
from gibbsian.machine import BoltzmannMachine
from gibbsian.units.base import Units

# Elements of the float64 arrays of one chunk: about 16 MB each.
_CHUNK_ELEMENTS = 2**21


def count_states(layers: Sequence[Units]) -> int | None:
    """Return the number of joint states of some layers; None if a unit has endlessly many."""
    tables = [block for u in layers for block in u.domain.blocks()]
    if any(t is None for t in tables):
        return None
    return math.prod(len(t) for t in tables if t is not None)


def states(layers: Sequence[Units], chunk: int = 4096) -> Iterator[list[Tensor]]:
    """Enumerate all joint states of some layers of finite units, a chunk at a time.

    The first block of the first layer moves slowest. Memory does not grow with the number of states.

    Parameters
    ----------
    layers : sequence of Units
    chunk : int
        Largest number of states at a time.

    Yields
    ------
    list of Tensor (m, n_l)
        One for each layer, m ≤ chunk, in the dtype of the layers' parameters.

    Raises
    ------
    GibbsianError
        If a unit has endlessly many values.
    """
    total = count_states(layers)
    if total is None:
        raise GibbsianError(
            "States can be enumerated only where every unit takes finitely many values."
        )
    tables = [
        r.values for u in layers for r in runs(u) for _ in range(r.count) if r.values is not None
    ]
    strides = [math.prod(len(t) for t in tables[i + 1 :]) for i in range(len(tables))]
    sizes = [u.size for u in layers]
    for first in range(0, total, chunk):
        index = torch.arange(first, min(first + chunk, total), device=tables[0].device)
        columns = [t[(index // stride) % len(t)] for t, stride in zip(tables, strides, strict=True)]
        yield list(torch.cat(columns, dim=-1).split(sizes, dim=-1))


def enumerable_side(machine: BoltzmannMachine) -> tuple[int, int] | None:
    """Return (parity, states) of the parity with the fewest states; None if neither is finite."""
    counts = [(count_states([machine.layers[i] for i in machine.parity(p)]), p) for p in (0, 1)]
    finite = [(count, p) for count, p in counts if count is not None]
    if not finite:
        return None
    count, p = min(finite)
    return p, count


def log_z(machine: BoltzmannMachine, limit_bits: float = 25) -> float:
    """Return log Z by adding up every state of the smaller side, in float64.

    log Z = log Σ_kept exp(−F(s_kept)), where F sums the other parity out in closed form
    (`BoltzmannMachine.marginal_energy`); so real-valued units may stand on one side. The machine's
    parameters are taken as they are and widened to float64.

    Parameters
    ----------
    machine : BoltzmannMachine
        Any depth: the sides are the even and the odd layers.
    limit_bits : float
        At most 2**limit_bits states are added up.

    Raises
    ------
    GibbsianError
        If no side has finitely many states, or the smaller one has too many.
    """
    side = enumerable_side(machine)
    if side is None:
        raise GibbsianError(
            "An exact log Z needs the even or the odd layers to have finitely many states, and this "
            "machine has real-valued units in both; estimate log Z by AIS instead."
        )
    kept, count = side
    if math.log2(count) > limit_bits:
        raise GibbsianError(
            f"An exact log Z would add up 2^{math.log2(count):.1f} states, more than the limit of "
            f"2^{limit_bits:g}; estimate log Z by AIS instead."
        )
    wide = copy.deepcopy(machine).to(device="cpu", dtype=torch.float64)
    layers = [wide.layers[i] for i in wide.parity(kept)]
    chunk = max(1, _CHUNK_ELEMENTS // sum(wide.sizes))
    total = torch.tensor(-math.inf, dtype=torch.float64)
    with torch.no_grad():
        for parts in states(layers, chunk):
            state = [parts[0]] * len(wide.layers)
            for i, part in zip(wide.parity(kept), parts, strict=True):
                state[i] = part
            free = wide.marginal_energy(state, summed=1 - kept)
            total = torch.logaddexp(total, torch.logsumexp(-free, dim=0))
    return float(total)
