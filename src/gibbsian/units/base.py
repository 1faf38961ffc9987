"""What a unit family is: four methods, and a domain.

A layer of units is an exponential family. With sufficient statistics T_k, natural parameters η_k
and a field f from the other layers,

    e(s) = −Σ_k η_k T_k(s),    Γ(f) = log Σ_s exp(f·s − e(s)),    p(s | f) = exp(f·s − e(s) − Γ(f)).

Every T_k carries the name of the parameter (or buffer) it belongs to. Two conventions make
everything else follow without asking for the type: a parameter called `log_x` stands for the
natural parameter x = exp(log_x), positive by construction; `bias` goes with T = s and
`log_precision` with T = −s²/2.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from gibbsian import kernels
from gibbsian.arguments import whole
from gibbsian.errors import DataError

Statistics = dict[str, Tensor]


class Domain(ABC):
    """The values a layer of units can take, and the independent units that data on it suggest."""

    size: int
    # What raw rows need when a machine is trained on a plain array: see gibbsian.data.
    transform: str = "identity"
    # Whether `check` also accepts probabilities of a 1 in place of bits (see `states`).
    rates: bool = False
    # Whether values are bounded below but not above.
    one_sided: bool = False
    # Bounds that training keeps parameters within, by name.
    limits: Mapping[str, tuple[float, float]] = {}

    @abstractmethod
    def check(self, x: Float[Tensor, "rows n"]) -> None:
        """Raise a `DataError` that says what to do where `x` holds a value outside the domain."""

    @abstractmethod
    def noise(self, chains: int, generator: Generator | None) -> Float[Tensor, "chains n"]:
        """Draw states that carry no information of any data."""

    @abstractmethod
    def blocks(self) -> list[Tensor | None]:
        """List, block by block, all values (K, width) of the block; None where they are endless."""

    @abstractmethod
    def natural(self, mean: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
        """Return the parameters of the independent units with these mean statistics.

        `mean` holds the data's mean of each statistic over `rows` rows. The result is smoothed, so
        that constant columns stay finite.
        """

    @property
    def widths(self) -> list[int]:
        """Number of columns of each block: columns that can only be clamped together."""
        return [1 if b is None else b.shape[1] for b in self.blocks()]


class Units(nn.Module, ABC):
    """A layer of units of one family.

    Attributes
    ----------
    size : int
        Number of columns n of a state.
    domain : Domain
        The values that a state can take.
    config : dict
        Plain values that rebuild the layer: see `gibbsian.units.from_spec`.
    members : sequence of Units
        The families side by side in this layer; empty for a layer of one family.
    gain : callable or None
        A kernel ``gain(f, b0, b1, beta0, beta1)`` for Σ Γ(β₁f; b₁) − Γ(β₀f; b₀) in one pass, where a
        family whose only parameter is its bias has one; annealing uses it.
    idle_bias : float
        A bias at which Γ is next to nothing without a field, or as little as it can be.
    sweeps : callable or None
        A kernel ``sweeps(v, h, weight, bias_v, bias_h, steps, generator)`` for Gibbs sweeps of a machine
        with two such layers, where the family has one; it returns both layers and the hidden fields,
        or None where it would be no faster.
    """

    domain: Domain
    config: dict[str, Any]
    members: nn.ModuleList
    gain: Callable[[Tensor, Tensor, Tensor, float, float], Tensor] | None = None
    idle_bias: float = 0.0
    sweeps: Callable[..., tuple[Tensor, Tensor, Tensor] | None] | None = None

    def __init__(self, domain: Domain, config: dict[str, Any]) -> None:
        super().__init__()
        self.domain, self.config = domain, config
        self.size = domain.size
        self.members = nn.ModuleList()

    @abstractmethod
    def statistics(self, s: Float[Tensor, "*batch n"]) -> Statistics:
        """Return the sufficient statistics T_k(s), each of shape (*batch, n)."""

    @abstractmethod
    def conditional(self, f: Float[Tensor, "*batch n"]) -> Statistics:
        """Return E[T_k(s) | f], each of shape (*batch, n); the state's mean is ``["bias"]``."""

    @abstractmethod
    def log_partition(self, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Return terms that sum to Γ(f); a block's term stands in its first column."""

    @abstractmethod
    def sample(
        self, f: Float[Tensor, "*batch n"], generator: Generator | None = None
    ) -> Float[Tensor, "*batch n"]:
        """Draw s ~ p(s | f)."""

    def doubled(self) -> "Units | None":
        """Return units for the sum of two tied copies of this layer, None where they are of no known family.

        They have parameters of the same names, with the same meaning for each copy.
        """
        return None


def natural(units: Units) -> dict[str, Tensor]:
    """Return the natural parameters η_k under the names of their statistics."""
    named = dict(units.named_parameters()) | dict(units.named_buffers())
    return {k: p.exp() if is_log(k) else p for k, p in named.items()}


def is_log(name: str) -> bool:
    """Tell whether a parameter of this name stands for the exponential of its value."""
    return name.rpartition(".")[2].startswith("log_")


def accumulator(x: Tensor) -> torch.dtype:
    """Return the dtype in which energies of `x` are summed: float64 wherever the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def log_partition_sum(units: Units, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return Γ(f), the sum of `log_partition` over columns, in float64 wherever the device has it.

    Where no gradient is asked for, a kernel of the family makes it in one pass, twice to six times as fast:
    as the gain over units in no field that have `idle_bias`.
    """
    wide = accumulator(f)
    if units.gain is not None and not is_differentiated(units, f):
        bias = units.get_parameter("bias").detach()
        if kernels.is_one_pass(f, bias):
            idle = torch.full_like(bias, units.idle_bias)
            rest = units.log_partition(idle - bias).detach().sum(dtype=wide)
            return units.gain(f.detach(), idle, bias, 0.0, 1.0) + rest
    return units.log_partition(f).sum(dim=-1, dtype=wide)


def is_differentiated(units: Units, f: Tensor) -> bool:
    """Tell whether what is made of this field is followed by autograd: compiled kernels are not."""
    learned = f.requires_grad or any(p.requires_grad for p in units.parameters())
    return learned and torch.is_grad_enabled()


def energy_terms(units: Units, s: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return e(s) column by column."""
    if len(units.members):
        pieces = s.split([m.size for m in members(units)], dim=-1)
        parts = [energy_terms(m, x) for m, x in zip(members(units), pieces, strict=True)]
        return torch.cat(parts, dim=-1)
    parameters = natural(units)
    terms = [-parameters[k] * t for k, t in units.statistics(s).items()]
    return torch.stack(terms).sum(dim=0) if len(terms) > 1 else terms[0]


def energy(units: Units, s: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return e(s) = −Σ_k η_k T_k(s), summed over columns in float64."""
    return energy_terms(units, s).sum(dim=-1, dtype=accumulator(s))


def mean(units: Units, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return E[s | f] = ∂Γ/∂f."""
    return state_mean(units, units.conditional(f))


def state_mean(units: Units, conditional: Mapping[str, Tensor]) -> Tensor:
    """Pick the mean state out of conditional statistics, side by side for a mixed layer."""
    if not len(units.members):
        return conditional["bias"]
    parts = enumerate(members(units))
    means = [state_mean(m, select(conditional, f"members.{i}.")) for i, m in parts]
    return torch.cat(means, dim=-1)


def members(units: Units) -> list[Units]:
    """Return the families side by side in a mixed layer."""
    return [m for m in units.members if isinstance(m, Units)]


def leaves(units: Units) -> list[Units]:
    """Return the families that a layer is made of, left to right."""
    parts = members(units)
    return [leaf for m in parts for leaf in leaves(m)] if parts else [units]


def select(statistics: Mapping[str, Tensor], prefix: str) -> Statistics:
    """Return the entries whose name starts with `prefix`, without it."""
    return {k.removeprefix(prefix): statistics[k] for k in statistics if k.startswith(prefix)}


def entropy(units: Units, f: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Return the entropy of p(s | f) in nats (differential for real units).

    H = Γ(f) − f·E[s] + E[e(s)], with E[e(s)] = −Σ_k η_k E[T_k], in float64: the terms cancel.
    """
    f = f.to(accumulator(f))
    expected = units.conditional(f)
    parameters = natural(units)
    total = units.log_partition(f).sum(dim=-1)
    total = total - (f * state_mean(units, expected)).sum(dim=-1)
    for k, t in expected.items():
        total = total - (parameters[k] * t).sum(dim=-1)
    return total


def tail_precision(units: Units) -> Float[Tensor, " n"]:
    """Return the precision that bounds each column's tails: ∞ for finitely many values."""
    if len(units.members):
        return torch.cat([tail_precision(m) for m in members(units)])
    if all(b is not None for b in units.domain.blocks()):
        like = next(units.parameters())
        return torch.full((units.size,), torch.inf, dtype=like.dtype, device=like.device)
    return natural(units)["log_precision"].detach()


def one_sided(units: Units) -> Bool[Tensor, " n"]:
    """Tell which columns can grow without end in one direction only: upwards."""
    if len(units.members):
        return torch.cat([one_sided(m) for m in members(units)])
    return torch.full((units.size,), units.domain.one_sided)


def check(units: Units, x: Tensor, what: str = "the data") -> None:
    """Raise a `DataError` unless `x` are finite rows (at least one) in the units' domain."""
    if not isinstance(x, Tensor):
        raise DataError(
            f"{what} are of the type {type(x).__name__}, and a tensor is needed; use torch.as_tensor."
        )
    if x.ndim != 2 or x.shape[1] != units.size:
        shape = "×".join(map(str, x.shape))
        raise DataError(
            f"{what} have shape {shape}, but these units need rows of {units.size} values."
        )
    if not len(x):
        raise DataError(f"{what} have no rows; give at least one.")
    if not bool(torch.isfinite(x).all()):
        count = int((~torch.isfinite(x)).sum())
        raise DataError(
            f"{what} hold {count} values that are NaN or infinite; remove or fill them first."
        )
    units.domain.check(x)


def states(
    units: Units, x: Float[Tensor, "rows n"], generator: Generator | None
) -> Float[Tensor, "rows n"]:
    """Turn valid data into states: probabilities of a 1 become bits, drawn anew at each call."""
    parts = leaves(units)
    if not any(leaf.domain.rates for leaf in parts):
        return x
    pieces = x.split([leaf.size for leaf in parts], dim=-1)
    drawn = [
        kernels.bits(p, generator) if leaf.domain.rates else p
        for leaf, p in zip(parts, pieces, strict=True)
    ]
    return torch.cat(drawn, dim=-1)


def check_size(size: int, what: str) -> int:
    """Return `size` as a positive int, else raise a `DataError`."""
    return whole(size, what, error=DataError)
