"""Pseudo-likelihood: each unit given all others, which needs no log Z."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gibbsian.evaluators import quadrature
from gibbsian.evaluators.blocks import Run, check_states, digits, runs
from gibbsian.evaluators.free_energy import check_one_hidden_layer, check_rows
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers.base import as_generator
from gibbsian.units import base as unit

_CHUNK_ELEMENTS = 2**18  # rows times hidden units: small enough to stay in cache
_SLAB = 64  # blocks whose couplings are fetched at a time


def pseudo_likelihood(
    machine: BoltzmannMachine, x: Float[Tensor, "rows n"]
) -> Float[Tensor, " rows"]:
    """Return Σ_b log p(v_b | v_−b) of each row, in nats (Besag 1975), exactly.

    b runs over blocks: single units, or a one-of-K block as a whole. Changing one block moves the
    hidden fields by Δv_b W_b alone, so a row costs Σ_b (K_b − 1) · hidden evaluations of Γ, without a
    matrix product. For a real-valued column p(v_b | v_−b) is a density, normalised by quadrature to
    about ten digits (`gibbsian.evaluators.quadrature`) at some 50 values of the column or more.

    Parameters
    ----------
    machine : BoltzmannMachine
        With one hidden layer, of any units.
    x : Tensor (rows, visible)
        States of the visible units: bits, not rates.

    Raises
    ------
    DataError
        If the rows are not states of the visible units.
    GibbsianError
        If the machine has more than one hidden layer.
    """
    v = _states(machine, x)
    chunk = max(1, _CHUNK_ELEMENTS // machine.sizes[1])
    with torch.no_grad():
        return torch.cat([_all_blocks(machine, part) for part in v.split(chunk)])


def stochastic_pseudo_likelihood(
    machine: BoltzmannMachine, x: Float[Tensor, "rows n"], generator: Generator | int | None = None
) -> Float[Tensor, " rows"]:
    """Return B · log p(v_b | v_−b) of each row in nats, for one of its B blocks at random.

    Its mean over b is the pseudo-likelihood. With bits it is scikit-learn's estimate from one random
    flip; here nothing is added inside the logarithm, so it does not saturate.

    Parameters
    ----------
    machine, x
        As for `pseudo_likelihood`.
    generator : torch.Generator or int
        Source of randomness, or a seed.

    Raises
    ------
    DataError, GibbsianError
        As `pseudo_likelihood`.
    """
    v = _states(machine, x)
    generator = as_generator(generator, machine)
    found = runs(machine.layers[0])
    blocks = sum(r.count for r in found)
    chosen = torch.randint(blocks, (len(v),), generator=generator, device=generator.device).to(
        v.device
    )
    out = torch.zeros(len(v), dtype=unit.accumulator(v), device=v.device)
    first = 0
    with torch.no_grad():
        for r in found:
            here = ((chosen >= first) & (chosen < first + r.count)).nonzero()[:, 0]
            if len(here):
                one = _one_real if r.values is None else _one_finite
                out[here] = one(machine, v[here], r, chosen[here] - first)
            first += r.count
    return blocks * out


def _states(machine: BoltzmannMachine, x: Tensor) -> Tensor:
    check_one_hidden_layer(machine, "Pseudo-likelihood")
    check_rows(machine, x)
    v = x.to(next(machine.parameters()))
    check_states(machine.layers[0], v, "Pseudo-likelihoods")
    return v


def _all_blocks(machine: BoltzmannMachine, v: Float[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
    f = machine.field(1, (v,))
    gamma = unit.log_partition_sum(machine.layers[1], f)
    total = torch.zeros_like(gamma)
    for r in runs(machine.layers[0]):
        if r.values is None:
            for column in range(r.first, r.first + r.count):
                total += quadrature.log_density(machine, v[:, column], f, column)
        else:
            for log_p in _finite_blocks(machine, v, r, f, gamma):
                total += log_p
    return total


def _finite_blocks(
    machine: BoltzmannMachine,
    v: Float[Tensor, "rows n"],
    r: Run,
    f: Float[Tensor, "rows hidden"],
    gamma: Float[Tensor, " rows"],
) -> Iterator[Float[Tensor, " rows"]]:
    """Yield log p of each block of a run of finite blocks, given the fields and Σ Γ at `v`."""
    values, hidden = _values(r), machine.layers[1]
    now, terms = digits(r, v), _block_energies(machine, r)
    w = torch.empty(0)
    for b in range(r.count):
        if b % _SLAB == 0:
            slab = min(_SLAB, r.count - b)
            w = couplings(machine, r.first + b * r.width, slab * r.width)
            w = w.unflatten(0, (slab, r.width))
        here = now[:, b]
        gains = []
        for k in range(1, len(values)):
            other = (here + k) % len(values)
            moved = f + (values[other] - values[here]) @ w[b % _SLAB]
            gain = unit.log_partition_sum(hidden, moved) - gamma
            gains.append(gain - terms[other, b] + terms[here, b])
        yield _log_share(gains, gamma)


def _values(r: Run) -> Float[Tensor, "K width"]:
    if r.values is None:
        raise TypeError("a run of real-valued columns has no list of values")
    return r.values


def _log_share(gains: list[Tensor], like: Tensor) -> Tensor:
    """Return −log(1 + Σ exp(gain)), gain = F(v) − F(v with another value)."""
    return -torch.logsumexp(torch.stack([torch.zeros_like(like), *gains]), dim=0)


def _block_energies(machine: BoltzmannMachine, r: Run) -> Float[Tensor, "K blocks"]:
    """Return e_b of each value of each block of a run, in float64."""
    units, values = machine.layers[0], _values(r)
    s = values.new_zeros(len(values), units.size)
    s[:, r.columns] = values.repeat(1, r.count)
    terms = unit.energy_terms(units, s)[:, r.columns]
    wide = unit.accumulator(s)
    return terms.unflatten(-1, (r.count, r.width)).sum(dim=-1, dtype=wide)


def couplings(machine: BoltzmannMachine, column: int, width: int) -> Float[Tensor, "width hidden"]:
    """Return the rows of W for some visible columns, whatever the kind of connection."""
    like = next(machine.parameters())
    eye = torch.zeros(width, machine.sizes[0], dtype=like.dtype, device=like.device)
    eye[range(width), range(column, column + width)] = 1
    return machine.joints[0].up(eye)


def _one_finite(
    machine: BoltzmannMachine, v: Float[Tensor, "rows n"], r: Run, block: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Return log p of one finite block a row, by the free energies of the row's other values."""
    values = _values(r)
    now = digits(r, v)[torch.arange(len(v), device=v.device), block]
    columns = torch.arange(r.width, device=v.device)
    at = r.first + block[:, None] * r.width + columns
    free = machine.free_energy(v)
    gains = []
    for k in range(1, len(values)):
        other = v.scatter(1, at, values[(now + k) % len(values)])
        gains.append(free - machine.free_energy(other))
    return _log_share(gains, free)


def _one_real(
    machine: BoltzmannMachine, v: Float[Tensor, "rows n"], r: Run, block: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Return log p of one real-valued column a row."""
    out = torch.zeros(len(v), dtype=unit.accumulator(v), device=v.device)
    f = machine.field(1, (v,))
    for b in block.unique().tolist():
        here = (block == b).nonzero()[:, 0]
        column = r.first + b
        out[here] = quadrature.log_density(machine, v[here, column], f[here], column)
    return out
