"""Where the parameters start."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import low_rank
from gibbsian.errors import GibbsianWarning, TrainingError
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import data_statistics, fit_units
from gibbsian.units import base as unit
from gibbsian.units.base import Units

WEIGHTS = ("normal", "glorot", "pca", "low-rank")
# Starts far from the reference, and what draws their visible states (machine, samples, data, generator).
EQUILIBRIUM = {"low-rank": low_rank.draw}


def initialise(
    machine: BoltzmannMachine,
    data: Float[Tensor, "rows n"],
    *,
    weights: str = "normal",
    scale: float = 0.01,
    biases: Mapping[int, float | Sequence[float]] | None = None,
    statistics: tuple[Mapping[str, Tensor], int] | None = None,
    generator: Generator | None = None,
) -> None:
    """Set all parameters to their start, in place.

    The visible units are fitted to the data's (smoothed) moments, so that at W = 0 the machine is
    the independent model of the data.

    Parameters
    ----------
    machine : BoltzmannMachine
    data : Tensor (rows, n)
        Rows for the moments (unless `statistics` has them) and for PCA.
    weights : {"normal", "glorot", "pca", "low-rank"}
        N(0, scale²); Glorot's uniform U(±√(6/(n + m))) (Glorot & Bengio 2010); or ``pca``: one
        principal direction of the data to each hidden unit, as many as there are of either, each scaled
        so that its hidden field has standard deviation 1 over the data, on top of N(0, scale²); or
        ``low-rank``: the machine of the data's first two principal directions, fitted by likelihood
        (`gibbsian.low_rank.fit`), plus N(0, scale²). It starts with the shares of the data's clusters, and
        training starts chains that would start at the ``reference`` with its own samples.
    scale : float
        Standard deviation of the normal part.
    biases : mapping of layer to number or numbers
        Linear parameters given by value; they override what the data suggest.
    statistics : mean statistics and row count, optional
        What `gibbsian.path.data_statistics` returned for all data.
    generator : torch.Generator
        Source of the random weights.

    Raises
    ------
    TrainingError
        If a name is unknown, the scale is negative, or a bias does not fit its layer.

    Notes
    -----
    Strengths of ``pca`` follow a rule, so the model's covariances along the directions are not the data's.
    """
    if weights not in WEIGHTS:
        raise TrainingError(f"Weights start as {', '.join(WEIGHTS)}, not as {weights!r}.")
    if not scale >= 0:
        raise TrainingError(f"The scale of the first weights must be 0 or positive, not {scale!r}.")
    stats = statistics or data_statistics(machine.layers[0], [data])
    with torch.no_grad():
        for c in machine.joints:
            c.weight.normal_(0.0, scale, generator=generator)
            if weights == "glorot":
                bound = (6 / (c.lower + c.upper)) ** 0.5
                c.weight.uniform_(-bound, bound, generator=generator)
        if any(p.requires_grad for p in machine.layers[0].parameters()):
            _warn_constant(machine.layers[0], stats[0])
            fit_units(machine.layers[0], *stats)
        if weights == "pca":
            _principal(machine, data)
        if weights == "low-rank":
            noise = machine.joints[0].weight.clone()
            low_rank.fit(machine, data, generator=generator)
            machine.joints[0].weight += noise
        for layer, value in (biases or {}).items():
            _set_bias(machine, layer, value)


def _warn_constant(units: Units, mean: Mapping[str, Tensor]) -> None:
    """Warn of constant columns under units with a precision, which the data alone do not bound."""
    for i, leaf in enumerate(unit.leaves(units)):
        found = unit.select(mean, f"members.{i}.") if unit.members(units) else mean
        if "log_precision" in found:
            variance = -2 * found["log_precision"] - found["bias"] ** 2
            count = int((variance <= 1e-9 * (1 + found["bias"] ** 2)).sum())
            high = leaf.domain.limits["log_precision"][1]
            if count:
                warnings.warn(
                    f"{count} of {leaf.size} real-valued columns are constant; their precision is bounded "
                    f"by the assumed dequantisation noise sigma0 = {math.exp(-high / 2):.3g}",
                    GibbsianWarning,
                    stacklevel=4,
                )


def _principal(machine: BoltzmannMachine, data: Float[Tensor, "rows n"]) -> None:
    """Put the leading principal directions into the first columns of the first couplings.

    Their mean field on the hidden units, and the hidden units' mean pull on the visible ones, are
    taken back by the biases, so that the start still has the data's means.
    """
    from sklearn.decomposition import PCA

    weight = machine.joints[0].weight
    rank = min(weight.shape[1], weight.shape[0], len(data) - 1)
    if rank < 1:
        raise TrainingError("A PCA start needs at least two rows of data; use weights='normal'.")
    pca = PCA(n_components=rank, random_state=0).fit(data.double().cpu().numpy())
    spread = torch.from_numpy(pca.explained_variance_).clamp(min=1e-12).sqrt()
    useful = spread > 1e-3 * spread[0]
    directions = (torch.from_numpy(pca.components_) / spread[:, None])[useful].T.to(weight)
    weight[:, : directions.shape[1]] += directions
    visible, hidden = machine.layers[0], machine.layers[1]
    fields = machine.joints[0].up(data.to(weight).mean(dim=0))
    take_back(hidden, fields)
    take_back(visible, machine.joints[0].down(unit.mean(hidden, fields)))


def take_back(units: Units, row: Tensor) -> None:
    """Subtract a row from the learned linear parameters of a layer, family by family."""
    first = 0
    for leaf in unit.leaves(units):
        bias = leaf.get_parameter("bias")
        if bias.requires_grad:
            bias.sub_(row[first : first + leaf.size])
        first += leaf.size


def _set_bias(machine: BoltzmannMachine, layer: int, value: float | Iterable[float]) -> None:
    if not 0 <= layer < len(machine.layers):
        raise TrainingError(f"There is no layer {layer} to set a bias of.")
    row = torch.as_tensor(value, dtype=torch.float64)
    n = machine.sizes[layer]
    if row.ndim > 1 or (row.ndim == 1 and len(row) != n):
        raise TrainingError(f"The bias of layer {layer} must be one number or {n} numbers.")
    if not bool(torch.isfinite(row).all()):
        raise TrainingError(f"The bias of layer {layer} holds values that are not finite.")
    row, first = row.expand(n), 0
    for leaf in unit.leaves(machine.layers[layer]):
        leaf.get_parameter("bias").copy_(row[first : first + leaf.size])
        first += leaf.size
