"""What a deep belief network is worth: a bound on the likelihood, and the share of rows misclassified."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.belief import DeepBeliefNetwork
from gibbsian.errors import DataError
from gibbsian.evaluators.belief import Partition
from gibbsian.evaluators.blocks import check_states
from gibbsian.evaluators.likelihood import StageProgress, partition
from gibbsian.samplers.base import as_generator

_CHUNK_ELEMENTS = 2**22


@dataclass(frozen=True)
class Bound:
    """A lower bound on the mean log-likelihood of rows, in nats per row.

    Attributes
    ----------
    mean : float
        ⟨log p*(v, s) − log q(s | v)⟩_q − log Z, with one or more draws of s a row.
    standard_error : float
        Of that mean, over rows (NaN for a single row); the error of log Z comes on top.
    importance : float
        The same with the logarithm of the mean weight of a row's draws (Burda et al. 2016): a bound too,
        and nearer with more of them.
    rows : Tensor (rows,)
        Each row's.
    samples : int
        Draws a row.
    log_z : float
        The log Z of the top machine that was used.
    """

    mean: float
    standard_error: float
    importance: float
    rows: Float[Tensor, " rows"]
    samples: int
    log_z: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the rows; None where a number is not finite."""
        names = ("mean", "standard_error", "importance", "samples", "log_z")
        found = {k: getattr(self, k) for k in names}
        return {k: v if math.isfinite(v) else None for k, v in found.items()} | {
            "rows": len(self.rows)
        }


def top_partition(
    network: DeepBeliefNetwork,
    x: Float[Tensor, "rows n"],
    labels: Int64[Tensor, " rows"] | None = None,
    *,
    generator: Generator | int | None = None,
    progress: StageProgress | None = None,
    **options: Any,
) -> Partition:
    """Find log Z of the top machine: see `gibbsian.evaluators.partition`, which takes `options`.

    Its reference is fitted to what a recognition pass of the training rows `x` brings to the top.
    """
    network.check(x, "the training rows")
    source = as_generator(generator, network.top)
    pen = network.up(x.to(next(network.parameters())), source)[-1]
    if network.classes:
        pen = torch.cat([pen, network.labels.hot(labels, "the training rows").to(pen)], dim=1)
    return partition(network.top, pen, generator=source, progress=progress, **options)


@torch.no_grad()
def bound(
    network: DeepBeliefNetwork,
    x: Float[Tensor, "rows n"],
    log_z: float,
    samples: int = 10,
    generator: Generator | int | None = None,
) -> Bound:
    """Bound the log-likelihood of rows (Salakhutdinov & Murray 2008, §4).

    log p(v) ≥ E_q[log p(v | s_1) + … + log p(s_{P−1} | s_P) − F(s_P) − Σ log q(s_{l+1} | s_l)] − log Z,
    with the states s drawn by the recognition weights, and F the top machine's free energy of the pen
    layer, its labels summed out. It is a bound for the log Z of the top machine itself; an estimate of
    log Z that is too low (AIS, on average) makes it optimistic by as much.

    Parameters
    ----------
    network : DeepBeliefNetwork
    x : Tensor (rows, visible)
        States of the visible units: bits, not rates.
    log_z : float
        Of the top machine: see `top_partition`.
    samples : int
        Draws of s a row.
    generator : torch.Generator or int

    Raises
    ------
    DataError
        If the rows are not states of the visible units.
    GibbsianError
        If the number of samples is impossible.
    """
    network.check(x, "the rows to evaluate")
    check_states(network.visible, x, "Likelihoods")
    samples = whole(samples, "The number of samples")
    source = as_generator(generator, network.top)
    like = next(network.parameters())
    chunk = max(1, _CHUNK_ELEMENTS // sum(network.sizes))
    parts = [
        torch.stack([_log_weights(network, part.to(like), source) for _ in range(samples)])
        for part in x.split(chunk)
    ]
    weights = torch.cat(parts, dim=1) - log_z
    rows = weights.mean(dim=0)
    spread = float(rows.std() / len(rows) ** 0.5) if len(rows) > 1 else float("nan")
    nearer = weights.logsumexp(dim=0) - torch.tensor(float(samples)).log()
    return Bound(float(rows.mean()), spread, float(nearer.mean()), rows, samples, float(log_z))


def _log_weights(
    network: DeepBeliefNetwork, v: Float[Tensor, "rows n"], generator: Generator
) -> Float[Tensor, " rows"]:
    """Return log p*(v, s) − log q(s | v) for one draw of s a row."""
    states = network.up(v, generator)
    total = network.pen_log_weight(states[-1])
    for i, (down, up) in enumerate(zip(network.down_layers, network.up_layers, strict=True)):
        total = total + down.log_probability(states[i], states[i + 1])
        total = total - up.log_probability(states[i + 1], states[i])
    return total


def has_likelihood(network: DeepBeliefNetwork, x: Float[Tensor, "rows n"]) -> bool:
    """Tell whether rows are states of the visible units, as a likelihood needs them: bits, not rates."""
    try:
        check_states(network.visible, x, "Likelihoods")
    except DataError:
        return False
    return True


def label_error(
    network: DeepBeliefNetwork,
    x: Float[Tensor, "rows n"],
    labels: Int64[Tensor, " rows"] | None,
    passes: int = 0,
    generator: Generator | int | None = None,
) -> float:
    """Return the share of rows that get a wrong label: see `DeepBeliefNetwork.classify`.

    Raises
    ------
    GibbsianError
        If network or rows have no labels, or a label is none of the network's.
    """
    found = network.classify(x, passes, generator).cpu()
    network.labels.hot(labels, "the rows to classify")
    assert labels is not None  # refused above
    return float((found != labels.cpu()).double().mean())
