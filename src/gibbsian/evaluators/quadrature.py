"""The density of one real-valued column given all others, normalised by quadrature.

With the other columns fixed, p(v) ∝ g(v) = exp(θ v − γ v²/2 + Σ_j Γ_j(f_j + (v − x) w_j)), where x is
the present value and f the hidden fields at it. Summing the hidden units instead, g is a mixture of
normal densities N(·, 1/γ): so nothing in it is narrower than σ = 1/√γ, and equally spaced
points at 0.8 σ integrate it to a relative error of about exp(−2π²/0.8²) < 1e-13.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators.blocks import runs
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import base as unit
from gibbsian.units.base import Units

_SPACING = 0.8
_TAIL = 9.0  # widths beyond the outermost mode: exp(−40) of the mass
_MOST_POINTS = 20_000
_CHUNK_ELEMENTS = 2**20
# Gauss-Legendre nodes a panel of width 2σ, where the column ends at 0 and even spacing is not exact.
_PANEL_NODES = 8


def log_density(
    machine: BoltzmannMachine,
    x: Float[Tensor, " rows"],
    f: Float[Tensor, "rows hidden"],
    column: int,
) -> Float[Tensor, " rows"]:
    """Return log p(v_i = x | v_−i) in nats, a density in the column's own units.

    Parameters
    ----------
    machine : BoltzmannMachine
        With one hidden layer.
    x : Tensor (rows,)
        The values of the column in rows whose hidden fields are `f`.
    f : Tensor (rows, hidden)
    column : int
        A real-valued column i of the visible layer.

    Raises
    ------
    GibbsianError
        If the column's couplings are so large that its density would need too many points.
    """
    wide = unit.accumulator(f)
    theta, precision, half_line = _column(machine.layers[0], column)
    eye = torch.zeros(1, machine.sizes[0], dtype=f.dtype, device=f.device)
    eye[0, column] = 1
    w = machine.joints[0].up(eye)[0]
    value = x.to(wide)
    low, high = _range(machine.layers[1], value, f, w, theta, precision)
    if half_line:
        low, high = low.clamp(min=0), high.clamp(min=_TAIL / precision**0.5)
    points, log_weights = _nodes(low, high, precision**-0.5, half_line)
    hidden, shape = machine.layers[1], max(1, _CHUNK_ELEMENTS // max(f.numel(), 1))
    parts = []
    for v, lw in zip(points.split(shape, dim=1), log_weights.split(shape, dim=1), strict=True):
        moved = f[:, None, :] + (v - value[:, None]).to(f.dtype)[:, :, None] * w
        gamma = hidden.log_partition(moved).sum(dim=-1, dtype=wide)
        parts.append(torch.logsumexp(theta * v - precision * v * v / 2 + gamma + lw, dim=1))
    total = torch.logsumexp(torch.stack(parts), dim=0)
    here = hidden.log_partition(f).sum(dim=-1, dtype=wide)
    return theta * value - precision * value * value / 2 + here - total


def _column(units: Units, column: int) -> tuple[float, float, bool]:
    """Return θ and γ of a real-valued column, and whether it ends at 0."""
    for leaf in unit.leaves(units):
        if column < leaf.size:
            found = unit.natural(leaf)
            theta, precision = found["bias"][column], found["log_precision"][column]
            return float(theta.detach()), float(precision.detach()), _ends_at_zero(leaf)
        column -= leaf.size
    raise IndexError(column)


def _ends_at_zero(leaf: Units) -> bool:
    """Ask the domain whether it has negative values."""
    try:
        leaf.domain.check(torch.full((1, leaf.size), -1.0))
    except DataError:
        return True
    return False


def _range(
    hidden: Units, x: Tensor, f: Tensor, w: Tensor, theta: float, precision: float
) -> tuple[Tensor, Tensor]:
    """Return values (rows,) that enclose all but exp(−40) of each row's density.

    The slope of log g at x is θ − γx + Σ_j w_j E[h_j]. Finite hidden units add to it between their
    smallest and largest values, wherever v goes; unbounded ones add w_j E[h_j | f_j] at x and at most
    w_j²/γ_j a unit of v on the way, and rectified ones no more than they have at x where v turns them off.
    So every mode lies where these bounds allow a slope of 0, and beyond the outermost log g falls at least
    like −κ v²/2, κ = γ − Σ w_j²/γ_j over units that v does not turn off.
    """
    wide = x.dtype
    least, most = torch.zeros((), dtype=wide), torch.zeros((), dtype=wide)
    for r in runs(hidden):
        if r.values is not None:
            blocks = w[r.columns].to(wide).unflatten(0, (r.count, r.width))
            each = blocks @ r.values.to(wide).T
            least, most = least + each.amin(dim=1).sum(), most + each.amax(dim=1).sum()
    tails, rectified = unit.tail_precision(hidden), unit.one_sided(hidden).to(w.device)
    free = torch.isfinite(tails)
    slope, growth = theta - precision * x, torch.where(free, w**2 / tails, 0.0)
    off_above, off_below = rectified & (w < 0), rectified & (w > 0)
    if bool(free.any()):
        pulls = (unit.mean(hidden, f) * w).to(wide)
        slope = slope + pulls[:, free].sum(dim=1)
        most, least = most - pulls[:, off_above].sum(dim=1), least - pulls[:, off_below].sum(dim=1)
    kappa_up, kappa_down = (precision - float(growth[~off].sum()) for off in (off_above, off_below))
    if min(kappa_up, kappa_down) <= 0:
        raise GibbsianError(
            "The density of a real-valued column has no finite integral; its couplings are too large against "
            "its precision."
        )
    up, down = slope + most, slope + least
    high = x + torch.where(up > 0, up / kappa_up, up / precision)
    low = x + torch.where(down < 0, down / kappa_down, down / precision)
    return low - _TAIL / kappa_down**0.5, high + _TAIL / kappa_up**0.5


def _nodes(low: Tensor, high: Tensor, sigma: float, half_line: bool) -> tuple[Tensor, Tensor]:
    """Return points (rows, points) from `low` to `high`, and the logs of their weights."""
    step = 2 * sigma if half_line else _SPACING * sigma
    count = math.ceil(float((high - low).max()) / step) + 1
    if count > _MOST_POINTS:
        raise GibbsianError(
            f"The density of a real-valued column would need {count} points, more than "
            f"{_MOST_POINTS}; its couplings are too large against its precision for a "
            "pseudo-likelihood."
        )
    k = torch.arange(count, dtype=low.dtype, device=low.device)
    starts = low[:, None] + step * k
    if not half_line:
        return starts, torch.full_like(starts, math.log(step))
    from numpy.polynomial.legendre import leggauss

    node, weight = (torch.as_tensor(a).to(low) for a in leggauss(_PANEL_NODES))
    points = starts[:, :, None] + sigma * (1 + node)
    logs = (sigma * weight).log().expand_as(points)
    return points.flatten(1), logs.flatten(1)
