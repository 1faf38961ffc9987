"""Machines whose couplings span a few directions: fitted by likelihood, and drawn from at equilibrium.

With W = U A, U (n, d) orthonormal and d small, hidden units see a row v only through m = Uᵀv, so

    log p(m) = log ρ(m) + Σ_j Γ_j(b_j + A_jᵀ m) − log Z,

ρ the density of m under independent visible units. With K(t) = Γ_v(a + U t) − Γ_v(a) it is taken at
m(t) = ∇K(t) for tilts t, from the saddle-point formula (Daniels 1954), up to a constant
log ρ(m(t)) = K(t) − t·m(t) − ½ log det K''(t). On a grid of t, where dm = det K'' dt, sums take the place of
integrals. This follows Béreux, Decelle, Furtlehner, Rosset & Seoane (ICLR 2025), but for their convex
problem: they choose directions and kinks of hidden units beforehand and learn strengths, on a grid of m;
here all of A and b are fitted.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.errors import TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.units import base as unit
from gibbsian.units.base import Units

# Directions, and points along each axis of a grid of so many; what of the data's range a grid goes beyond it.
RANK = 2
_POINTS, _BEYOND = {1: 401, 2: 45, 3: 17}, 0.25
# Rounds of the fit on grids, then on so many samples, and steps of couplings in each; the furthest that a
# visible bias goes in one.
_ROUNDS, _SAMPLED, _COUNT, _STEPS, _FURTHEST = 8, 4, 4000, 15, 0.5
# Draws for each sample that is kept.
_DRAWS, _ROWS = 20, 500


@dataclass(frozen=True)
class Points:
    """Where integrals over m are sums: a grid, or weighted samples.

    Attributes
    ----------
    means : Tensor (points, n)
        E[v] at the tilt of each, or the sample.
    projections : Tensor (points, d)
        m = Uᵀ E[v].
    log_density : Tensor (points,)
        Log of ρ(m) dm, up to a constant.
    """

    means: Float[Tensor, "points n"]
    projections: Float[Tensor, "points d"]
    log_density: Float[Tensor, " points"]


@dataclass(frozen=True)
class Grid(Points):
    """Independent visible units, tilted along a few directions.

    Attributes
    ----------
    tilts : Tensor (points, d)
        t.
    log_partitions : Tensor (points,)
        Γ_v(a + U t).
    slopes : Tensor (points, n)
        Derivative of each mean by its own bias.
    """

    tilts: Float[Tensor, "points d"]
    log_partitions: Float[Tensor, " points"]
    slopes: Float[Tensor, "points n"]


def grid(
    visible: Units, directions: Float[Tensor, "n d"], shift: Float[Tensor, " n"],
    seen: Float[Tensor, "rows d"],
) -> Grid:  # fmt: skip
    """Lay a grid over the projections that were seen, and a little beyond.

    Parameters
    ----------
    visible : Units
        In float64, their bias a.
    directions : Tensor (n, d)
        U, orthonormal.
    shift : Tensor (n,)
        Added to a.
    seen : Tensor (rows, d)
        Projections Uᵀv of data.
    """
    axes = [_axis(visible, u, shift, m) for u, m in zip(directions.T, seen.T, strict=True)]
    count = _POINTS[len(axes)]
    lines = [torch.linspace(low, high, count, dtype=torch.float64) for low, high in axes]
    tilts = torch.cartesian_prod(*lines).view(-1, len(axes))
    f = shift + tilts @ directions.T
    means, log_partitions = unit.mean(visible, f), visible.log_partition(f).sum(dim=-1)
    projections = means @ directions
    curve = torch.stack([_slope(visible, f, u) @ directions for u in directions.T], dim=1)
    volume = torch.linalg.slogdet(curve).logabsdet.clamp(min=-1e3)
    density = log_partitions - (tilts * projections).sum(dim=1) + volume / 2
    return Grid(means, projections, density, tilts, log_partitions, _slope(visible, f, 1.0))


def _axis(
    visible: Units, direction: Float[Tensor, " n"], shift: Float[Tensor, " n"],
    seen: Float[Tensor, " rows"],
) -> tuple[float, float]:  # fmt: skip
    """Return the tilts along one direction whose means pass what was seen, or come near their limit."""
    margin = _BEYOND * float(seen.max() - seen.min())
    ends = []
    for sign, edge in ((-1, float(seen.min()) - margin), (1, float(seen.max()) + margin)):
        sizes = 0.1 * 1.15 ** torch.arange(80, dtype=torch.float64)
        found = unit.mean(visible, shift + sign * sizes[:, None] * direction) @ direction
        first = float(unit.mean(visible, shift) @ direction)
        enough = (sign * (found - edge) >= 0) | (
            (found - found[-1]).abs() <= 0.01 * abs(found[-1] - first)
        )
        ends.append(sign * float(sizes[enough.double().argmax()]))
    return ends[0], ends[1]


def _slope(
    visible: Units, f: Float[Tensor, "points n"], along: Tensor | float, step: float = 1e-4
) -> Float[Tensor, "points n"]:
    """Return the derivative of E[v | f] as f moves along a direction."""
    return (unit.mean(visible, f + step * along) - unit.mean(visible, f - step * along)) / (
        2 * step
    )


@torch.no_grad()
def fit(
    machine: BoltzmannMachine, data: Float[Tensor, "rows n"], rank: int = RANK,
    generator: Generator | None = None,
) -> None:  # fmt: skip
    """Set couplings and biases to those of a low-rank machine of the data, in place.

    U are the first principal directions of the data. Each hidden unit begins with a direction A_j drawn at
    random and a kink at a random row; then A and the hidden biases go up the likelihood of the projections
    on the grid (L-BFGS), in turns with the visible biases, which go to where every mean is what it was
    without couplings (the data's). The saddle point errs where visible units are few, so in the last turns
    exactly weighted samples take the grid's place. Other parameters, such as precisions, stay as they are.

    Raises
    ------
    TrainingError
        If there are more than two layers, the data are too few, or visible and hidden units are unbounded.
    """
    _check(machine, data, rank)
    visible, hidden = (copy.deepcopy(u).double().cpu() for u in machine.layers)
    x = data.double().cpu()
    shift = x.new_zeros(machine.sizes[0])
    target = unit.mean(visible, shift)
    directions, rank = _principal(x, rank)
    centre = target @ directions
    seen = x @ directions
    local = _local(generator)
    row = _begin(seen - centre, machine.sizes[1], local)

    def pull(m: Tensor, row: Tensor) -> Tensor:
        a, b, c = _parts(row, rank)
        return hidden.log_partition((m - centre) @ a + b).sum(dim=-1) + (m - centre) @ c

    for turn in range(_ROUNDS + _SAMPLED):
        g = grid(visible, directions, shift, seen)
        points: Points = g
        log_p = g.log_density + pull(g.projections, row)
        if turn >= _ROUNDS:
            points = _proposed(visible, directions, shift, g, log_p, _COUNT, local)

        def height(row: Tensor, at: Points = points) -> Tensor:
            inside = at.log_density + pull(at.projections, row)
            return pull(seen, row).mean() - inside.logsumexp(0)

        row = _climb(row, height)
        if turn < _ROUNDS + _SAMPLED - 1:
            p = (points.log_density + pull(points.projections, row)).softmax(0)
            slope = (log_p.softmax(0) @ g.slopes).clamp(min=1e-12)
            gap = ((target - p @ points.means) / slope).clamp(-_FURTHEST, _FURTHEST)
            # Along the directions the likelihood finds the bias, c, itself.
            shift = shift + gap - directions @ (directions.T @ gap)
    a, b, c = _parts(row, rank)
    shift = shift + directions @ c
    weight = machine.joints[0].weight
    weight.copy_((directions @ a).to(weight))
    move_biases(machine.layers[0], shift)
    move_biases(machine.layers[1], b - centre @ a)


def _begin(seen: Float[Tensor, "rows d"], hidden: int, generator: Generator) -> Float[Tensor, " n"]:
    """Return weak couplings in random directions, and biases with kinks at rows, for `_parts`."""
    ways = torch.randn(seen.shape[1], hidden, generator=generator, dtype=seen.dtype)
    ways = 0.1 * ways / ways.norm(dim=0) / seen.std(dim=0).clamp(min=1e-6)[:, None]
    rows = torch.randint(len(seen), (hidden,), generator=generator)
    kinks = -(seen[rows].T * ways).sum(dim=0)
    return torch.cat([ways.flatten(), kinks, ways.new_zeros(seen.shape[1])])


def _climb(row: Float[Tensor, " n"], height: Callable[[Tensor], Tensor]) -> Float[Tensor, " n"]:
    """Go up a function of a row of parameters by L-BFGS, and return where that ends."""
    from scipy.optimize import minimize

    def down(now: np.ndarray) -> tuple[float, np.ndarray]:
        p = torch.from_numpy(now).clone().requires_grad_()
        with torch.enable_grad():
            loss = -height(p)
            (slope,) = torch.autograd.grad(loss, p)
        return float(loss.detach()), slope.numpy()

    found = minimize(down, row.numpy(), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    return torch.from_numpy(found.x)


def _parts(row: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return couplings (d, hidden), hidden biases (hidden,) and a visible bias along the directions (d,)."""
    most = row[:-rank].view(rank + 1, -1)
    return most[:-1], most[-1], row[-rank:]


def _principal(x: Float[Tensor, "rows n"], rank: int) -> tuple[Tensor, int]:
    """Return the first principal directions (n, rank) of rows, as many as they vary in."""
    from sklearn.decomposition import PCA

    found = PCA(n_components=rank, random_state=0).fit(x.numpy())
    useful = max(1, int((found.explained_variance_ > 1e-9).sum()))
    return torch.from_numpy(np.asarray(found.components_)[:useful].T.copy()).double(), useful


def _check(machine: BoltzmannMachine, data: Float[Tensor, "rows n"], rank: int) -> None:
    if len(machine.layers) != 2:
        raise TrainingError("A low-rank start is for machines of two layers; use weights='normal'.")
    if not 1 <= rank <= max(_POINTS):
        raise TrainingError(f"A low-rank machine has 1 to {max(_POINTS)} directions, not {rank!r}.")
    if len(data) <= rank or machine.sizes[0] < rank:
        raise TrainingError(
            f"A low-rank start needs {rank} columns and more rows of data; use weights='normal'."
        )
    if all(bool(unit.tail_precision(u).isfinite().any()) for u in machine.layers):
        raise TrainingError(
            "A low-rank start needs visible or hidden units of finitely many values; use weights='normal'."
        )


def move_biases(units: Units, row: Float[Tensor, " n"]) -> None:
    """Add a row to the learned linear parameters of a layer, family by family."""
    first = 0
    for leaf in unit.leaves(units):
        bias = leaf.get_parameter("bias")
        if bias.requires_grad:
            bias.add_(row[first : first + leaf.size].to(bias))
        first += leaf.size


@torch.no_grad()
def draw(
    machine: BoltzmannMachine, samples: int, data: Float[Tensor, "rows n"],
    generator: Generator | None = None, rank: int = RANK,
) -> Float[Tensor, "samples n"]:  # fmt: skip
    """Draw samples of a machine whose couplings are nearly of low rank, at equilibrium and without a chain.

    Proposals come from the mixture, over the grid, of visible units tilted along the first directions of W.
    Its density q(v) is known exactly, so each of 20 proposals a sample is weighted by the machine's own
    p(v)/q(v), and samples are drawn by these weights (sampling–importance–resampling; Rubin 1987). So neither
    the grid nor what W has beside these directions biases samples as long as many proposals count: near low
    rank.

    Parameters
    ----------
    machine : BoltzmannMachine
        Of two layers.
    samples : int
    data : Tensor (rows, n)
        The grid lies where they are.
    generator : torch.Generator, optional
    rank : int

    Raises
    ------
    TrainingError
        As for `fit`.
    """
    _check(machine, data, rank)
    visible, hidden = (copy.deepcopy(u).double().cpu() for u in machine.layers)
    weight, local = machine.joints[0].weight.double().cpu(), _local(generator)
    directions = torch.linalg.svd(weight, full_matrices=False).U[:, :rank]
    shift = weight.new_zeros(len(weight))
    g = grid(visible, directions, shift, data.double().cpu() @ directions)
    pull = hidden.log_partition(g.projections @ (directions.T @ weight)).sum(dim=-1)
    rows = _proposed(visible, directions, shift, g, g.log_density + pull, _DRAWS * samples, local)
    share = rows.log_density + hidden.log_partition(rows.means @ weight).sum(dim=-1)
    kept = torch.multinomial(share.softmax(0), samples, replacement=True, generator=local)
    return rows.means[kept].to(machine.joints[0].weight)


def _proposed(
    visible: Units, directions: Float[Tensor, "n d"], shift: Float[Tensor, " n"], g: Grid,
    log_p: Float[Tensor, " points"], count: int, generator: Generator,
) -> Points:  # fmt: skip
    """Draw rows from a mixture of the grid's tilts; their weights make them stand for independent units."""
    chosen = torch.multinomial(log_p.softmax(0), count, replacement=True, generator=generator)
    rows, densities = [], []
    for part in chosen.split(_ROWS):
        v = visible.sample(shift + g.tilts[part] @ directions.T, generator)
        tilted = (v @ directions) @ g.tilts.T - g.log_partitions
        rows.append(v)
        densities.append(-(log_p.log_softmax(0) + tilted).logsumexp(dim=1))
    drawn = torch.cat(rows)
    return Points(drawn, drawn @ directions, torch.cat(densities))


def _local(generator: Generator | None) -> Generator:
    """Return a generator on the CPU, where all of this is done, that goes on from a given one."""
    if generator is None:
        return Generator().manual_seed(torch.initial_seed())
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return Generator().manual_seed(int(seed))
