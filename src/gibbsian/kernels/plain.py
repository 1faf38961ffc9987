"""The plain PyTorch path of every kernel, on any device.

Each function draws from `generator` alone and returns a new tensor of the field's dtype, outside
any autograd graph. `field` has shape (*batch, n) and the natural parameters shape (n,).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

# torch.binomial is slow; up to this many trials counting uniforms is faster.
COUNTED_TRIALS = 16

# Below this z a Gaussian truncated to its tail is exponential to 8 digits.
_EXPONENTIAL = -1e4


def uniform(like: Float[Tensor, "*shape"], generator: Generator | None) -> Float[Tensor, "*shape"]:
    """Draw U[0, 1) in the shape, dtype and device of `like`."""
    return torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)


@torch.no_grad()
def bits(p: Float[Tensor, "*batch n"], generator: Generator | None) -> Float[Tensor, "*batch n"]:
    """Draw bits in {0, 1} with P(1) = p."""
    return (uniform(p, generator) < p).to(p.dtype)


@torch.no_grad()
def bernoulli(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], generator: Generator | None
) -> Float[Tensor, "*batch n"]:
    """Draw bits in {0, 1} with P(1) = σ(field + bias)."""
    p = torch.sigmoid_(field + bias)
    return torch.lt(uniform(p, generator), p, out=p).to(field.dtype)


@torch.no_grad()
def spin(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], generator: Generator | None
) -> Float[Tensor, "*batch n"]:
    """Draw spins in {−1, +1} with P(+1) = σ(2(field + bias))."""
    p = torch.sigmoid_((field + bias).mul_(2))
    return torch.lt(uniform(p, generator), p, out=p).mul_(2).sub_(1).to(field.dtype)


@torch.no_grad()
def binomial(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    trials: int,
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw counts 0…trials, Binomial(trials, σ(field + bias))."""
    p = torch.sigmoid_(field + bias)
    if trials > COUNTED_TRIALS:
        counts = torch.binomial(torch.full_like(p, trials), p, generator=generator)
        return counts.to(field.dtype)
    total = torch.zeros_like(p)
    for _ in range(trials):
        total += uniform(p, generator) < p
    return total.to(field.dtype)


@torch.no_grad()
def gaussian(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    precision: Float[Tensor, " n"],
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw N((field + bias)/γ, 1/γ), γ the precision."""
    mean = (field + bias).div_(precision)
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return noise.mul_(precision.rsqrt()).add_(mean).to(field.dtype)


@torch.no_grad()
def truncated_gaussian(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    precision: Float[Tensor, " n"],
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw N((field + bias)/γ, 1/γ) conditioned on s ≥ 0, exactly, by inverting its distribution.

    With z = (field + bias)/√γ and u uniform, y solves Φ(−y) = u Φ(z), and s = (y + z)/√γ. Far in
    the tail Φ underflows, so there the equation is solved by Newton steps on log Φ; further still
    y + z cancels, and the law is an exponential one of rate |z| up to a relative 1/z².
    """
    wide = torch.float32 if field.device.type == "mps" else torch.float64
    root = precision.to(wide).sqrt()
    z = (field + bias).to(wide) / root
    u = torch.rand(z.shape, generator=generator, dtype=wide, device=z.device)
    log_u = u.clamp_(min=torch.finfo(wide).tiny).log_()
    log_tail = log_u + torch.special.log_ndtr(z)
    near = -torch.special.ndtri(log_tail.exp().clamp(max=1 - torch.finfo(wide).eps))
    y = (-2 * log_tail.clamp(max=-1.0)).sqrt()
    for _ in range(5):
        residual = torch.special.log_ndtr(-y) - log_tail
        y = y + residual * _mills(y)
    y = torch.where(log_tail > -20, near, y)
    s = torch.where(z < _EXPONENTIAL, log_u / z, y + z)
    return (s / root).clamp(min=0).to(field.dtype)


def _mills(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return Φ(−y)/φ(y), the Mills ratio, without underflow."""
    return torch.special.erfcx(y / 2**0.5) * (torch.pi / 2) ** 0.5


@torch.no_grad()
def softmax(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    categories: int,
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw one-of-K blocks with P(k) ∝ exp(field_k + bias_k), one uniform a block."""
    logits = (field + bias).unflatten(-1, (-1, categories))
    edges = torch.softmax(logits, dim=-1).cumsum(dim=-1)
    u = torch.rand(
        (*edges.shape[:-1], 1), generator=generator, dtype=edges.dtype, device=edges.device
    )
    # Scaling by the last edge keeps rounding of the cumulative sum from losing the last category.
    # Edges that equal u are passed, so that a category without probability is never drawn.
    index = (edges <= u * edges[..., -1:]).sum(dim=-1, keepdim=True).clamp_(max=categories - 1)
    return torch.zeros_like(edges).scatter_(-1, index, 1.0).flatten(-2).to(field.dtype)


@torch.no_grad()
def bernoulli_gain(
    field: Float[Tensor, "*batch n"],
    bias0: Float[Tensor, " n"],
    bias1: Float[Tensor, " n"],
    beta0: float,
    beta1: float,
) -> Float[Tensor, "*batch"]:
    """Return Σ softplus(β₁ field + b₁) − softplus(β₀ field + b₀) over the last axis, in float64."""
    wide = torch.float32 if field.device.type == "mps" else torch.float64
    terms = F.softplus(beta1 * field + bias1) - F.softplus(beta0 * field + bias0)
    return terms.sum(dim=-1, dtype=wide)


@torch.no_grad()
def spin_gain(
    field: Float[Tensor, "*batch n"],
    bias0: Float[Tensor, " n"],
    bias1: Float[Tensor, " n"],
    beta0: float,
    beta1: float,
) -> Float[Tensor, "*batch"]:
    """Return Σ log 2cosh(β₁ field + b₁) − log 2cosh(β₀ field + b₀) over the last axis, in float64."""
    twice = bernoulli_gain(field, 2 * bias0, 2 * bias1, 2 * beta0, 2 * beta1)
    linear = (beta1 - beta0) * field + (bias1 - bias0)
    return twice - linear.sum(dim=-1, dtype=twice.dtype)
