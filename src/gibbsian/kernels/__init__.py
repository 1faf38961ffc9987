"""The hot inner step: from fields to sampled states, one function a unit family.

Units call these functions and nothing else. Each goes to the fastest path there is: `native` on the
CPU, `cuda` on NVIDIA GPUs, and `plain`, PyTorch on any device, which is also the reference that the
others are tested against. All draw from `generator` alone and return a new tensor of the field's
dtype, outside any autograd graph. `field` has shape (*batch, n) and natural parameters shape (n,).
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.kernels import cuda, native, plain

__all__ = [
    "bernoulli",
    "bernoulli_gain",
    "bernoulli_sweeps",
    "binomial",
    "bits",
    "gaussian",
    "softmax",
    "spin",
    "spin_gain",
    "truncated_gaussian",
    "truncated_log_partition",
    "truncated_moments",
]


def _on_cuda(field: Tensor) -> bool:
    return field.is_cuda and cuda.available()


def bits(p: Float[Tensor, "*batch n"], generator: Generator | None) -> Float[Tensor, "*batch n"]:
    """Draw bits in {0, 1} with P(1) = p."""
    if native.takes("bits", p):
        return native.draw("bits", p, generator)
    path = cuda if _on_cuda(p) else plain
    return path.bits(p, generator)


def bernoulli(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], generator: Generator | None
) -> Float[Tensor, "*batch n"]:
    """Draw bits in {0, 1} with P(1) = σ(field + bias)."""
    if native.takes("bernoulli", field, bias):
        return native.draw("bernoulli", field, generator, bias)
    path = cuda if _on_cuda(field) else plain
    return path.bernoulli(field, bias, generator)


def spin(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], generator: Generator | None
) -> Float[Tensor, "*batch n"]:
    """Draw spins in {−1, +1} with P(+1) = σ(2(field + bias))."""
    if native.takes("spin", field, bias):
        return native.draw("spin", field, generator, bias)
    path = cuda if _on_cuda(field) else plain
    return path.spin(field, bias, generator)


def binomial(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    trials: int,
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw counts 0…trials, Binomial(trials, σ(field + bias))."""
    if trials <= plain.COUNTED_TRIALS and native.takes("binomial", field, bias):
        return native.draw("binomial", field, generator, bias, trials)
    path = cuda if _on_cuda(field) else plain
    return path.binomial(field, bias, trials, generator)


def gaussian(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    precision: Float[Tensor, " n"],
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw N((field + bias)/γ, 1/γ), γ the precision."""
    if native.takes("gaussian", field, bias, precision):
        return native.draw("gaussian", field, generator, bias, precision.rsqrt())
    path = cuda if _on_cuda(field) else plain
    return path.gaussian(field, bias, precision, generator)


def truncated_gaussian(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    precision: Float[Tensor, " n"],
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw N((field + bias)/γ, 1/γ) conditioned on s ≥ 0, exactly."""
    if native.takes("truncated_gaussian", field, bias, precision):
        return native.draw("truncated_gaussian", field, generator, bias, precision.rsqrt())
    path = cuda if _on_cuda(field) else plain
    return path.truncated_gaussian(field, bias, precision, generator)


def truncated_moments(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], precision: Float[Tensor, " n"]
) -> tuple[Tensor, Tensor] | None:
    """Return E[s] and E[s²] of what `truncated_gaussian` draws; None where no compiled kernel makes them."""
    if not _is_float("truncated_moments", field, bias, precision):
        return None
    square = torch.empty_like(field, memory_format=torch.contiguous_format)
    place = square.data_ptr()
    return native.evaluate("truncated_moments", field, bias, precision.rsqrt(), place), square


def truncated_log_partition(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], precision: Float[Tensor, " n"]
) -> Float[Tensor, "*batch n"] | None:
    """Return log ∫ exp((field + bias) s − γ s²/2) ds over s ≥ 0; None where no compiled kernel makes it."""
    if not _is_float("truncated_log_partition", field, bias, precision):
        return None
    return native.evaluate("truncated_log_partition", field, bias, precision.rsqrt())


def softmax(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    categories: int,
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw one-of-K blocks with P(k) ∝ exp(field_k + bias_k), one uniform a block."""
    if native.takes("softmax", field, bias):
        return native.draw("softmax", field, generator, bias, categories)
    path = cuda if _on_cuda(field) else plain
    return path.softmax(field, bias, categories, generator)


def _is_float(name: str, field: Tensor, *parameters: Tensor) -> bool:
    """Tell whether a compiled kernel that is made for float32 alone takes this field."""
    return field.dtype is torch.float32 and native.takes(name, field, *parameters)


def is_one_pass(field: Tensor, bias: Tensor) -> bool:
    """Tell whether gains of this field are made in one pass, by a compiled kernel."""
    return _is_float("bernoulli_gain", field, bias)


def bernoulli_gain(
    field: Float[Tensor, "*batch n"],
    bias0: Float[Tensor, " n"],
    bias1: Float[Tensor, " n"],
    beta0: float,
    beta1: float,
) -> Float[Tensor, "*batch"]:
    """Return Σ softplus(β₁ field + b₁) − softplus(β₀ field + b₀) over the last axis, in float64."""
    if _is_float("bernoulli_gain", field, bias0, bias1):
        return native.gain("bernoulli_gain", field, bias0, bias1, beta0, beta1)
    return plain.bernoulli_gain(field, bias0, bias1, beta0, beta1)


def spin_gain(
    field: Float[Tensor, "*batch n"],
    bias0: Float[Tensor, " n"],
    bias1: Float[Tensor, " n"],
    beta0: float,
    beta1: float,
) -> Float[Tensor, "*batch"]:
    """Return Σ log 2cosh(β₁ field + b₁) − log 2cosh(β₀ field + b₀) over the last axis, in float64."""
    if _is_float("spin_gain", field, bias0, bias1):
        return native.gain("spin_gain", field, bias0, bias1, beta0, beta1)
    return plain.spin_gain(field, bias0, bias1, beta0, beta1)


def bernoulli_sweeps(
    visible: Float[Tensor, "chains n"],
    hidden: Float[Tensor, "chains m"],
    weight: Float[Tensor, "n m"],
    bias_v: Float[Tensor, " n"],
    bias_h: Float[Tensor, " m"],
    steps: int,
    generator: Generator | None,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Make Gibbs sweeps of a Bernoulli-Bernoulli machine: visible given hidden, hidden given visible.

    Returns both layers and the last fields on the hidden one; None for more than a few chains, where
    matrix products are faster, and off the CPU.
    """
    states = (hidden, weight, bias_v, bias_h)
    if (
        len(visible) > native.FEW
        or visible.dtype != hidden.dtype
        or not native.takes("bernoulli_sweeps", visible, *states)
    ):
        return None
    return native.sweeps(visible, hidden, weight, bias_v, bias_h, steps, generator)
