"""The CUDA path: Triton kernels that read a field once and write states in its dtype.

The key of a call is drawn from the run's generator on the device and read there, so the host never
waits, and a CUDA graph that the generator is registered with draws anew at each replay. What the
kernels do not take (float64, counts of many trials, huge blocks) goes to `plain`. Triton comes with
PyTorch's CUDA wheels for Linux; without it `available` says no.
"""

import os
import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.errors import GibbsianWarning
from gibbsian.kernels import plain

_DTYPES = {torch.float32, torch.bfloat16, torch.float16}

# Elements a program draws. Draws do not depend on it.
_BLOCK = 1024

# What Triton's versions have different defaults for: a product and a sum may be one instruction.
_OPTIONS = {"enable_fp_fusion": True}

# Up to so many elements 32 bits count them, a last block that is not full included.
_NARROW = 2**31 - 2**16

# Categories above this do not fit into one program.
_MOST_CATEGORIES = 4096


@cache
def available() -> bool:
    """Tell whether the kernels run here; ``GIBBSIAN_KERNELS=plain`` turns them off."""
    if os.environ.get("GIBBSIAN_KERNELS") == "plain" or find_spec("triton") is None:
        return False
    try:
        zero = torch.zeros(1, device="cuda")
        _launch("bernoulli", zero, zero.long(), 1, (1, 1, zero), BLOCK=_BLOCK, RUN=1)
    except Exception as error:
        warnings.warn(
            f"the CUDA kernels cannot be compiled ({error or type(error).__name__}), so plain "
            "PyTorch draws in their place, slower; install a C compiler if that is what is "
            "missing, or set GIBBSIAN_KERNELS=plain",
            GibbsianWarning,
            stacklevel=3,
        )
        return False
    return True


def takes(field: Tensor, *parameters: Tensor) -> bool:
    """Tell whether the kernels can draw from tensors of these dtypes."""
    return all(x.dtype in _DTYPES for x in (field, *parameters))


@torch.no_grad()
def bits(p: Float[Tensor, "*batch n"], generator: Generator | None) -> Float[Tensor, "*batch n"]:
    """Draw bits in {0, 1} with P(1) = p."""
    if not takes(p):
        return plain.bits(p, generator)
    return _draw("bits", p, generator)


@torch.no_grad()
def bernoulli(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], generator: Generator | None
) -> Float[Tensor, "*batch n"]:
    """Draw bits in {0, 1} with P(1) = σ(field + bias)."""
    if not takes(field, bias):
        return plain.bernoulli(field, bias, generator)
    return _draw("bernoulli", field, generator, bias)


@torch.no_grad()
def spin(
    field: Float[Tensor, "*batch n"], bias: Float[Tensor, " n"], generator: Generator | None
) -> Float[Tensor, "*batch n"]:
    """Draw spins in {−1, +1} with P(+1) = σ(2(field + bias))."""
    if not takes(field, bias):
        return plain.spin(field, bias, generator)
    return _draw("spin", field, generator, bias)


@torch.no_grad()
def binomial(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    trials: int,
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw counts 0…trials, Binomial(trials, σ(field + bias))."""
    if trials > plain.COUNTED_TRIALS or not takes(field, bias):
        return plain.binomial(field, bias, trials, generator)
    return _draw("binomial", field, generator, bias, trials)


@torch.no_grad()
def gaussian(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    precision: Float[Tensor, " n"],
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw N((field + bias)/γ, 1/γ), γ the precision."""
    if not takes(field, bias, precision):
        return plain.gaussian(field, bias, precision, generator)
    return _draw("gaussian", field, generator, bias, precision)


@torch.no_grad()
def truncated_gaussian(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    precision: Float[Tensor, " n"],
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw N((field + bias)/γ, 1/γ) conditioned on s ≥ 0, exactly, by rejection (Robert 1995)."""
    if not takes(field, bias, precision):
        return plain.truncated_gaussian(field, bias, precision, generator)
    return _draw("truncated_gaussian", field, generator, bias, precision)


@torch.no_grad()
def softmax(
    field: Float[Tensor, "*batch n"],
    bias: Float[Tensor, " n"],
    categories: int,
    generator: Generator | None,
) -> Float[Tensor, "*batch n"]:
    """Draw one-of-K blocks with P(k) ∝ exp(field_k + bias_k), one uniform a block."""
    if categories > _MOST_CATEGORIES or not takes(field, bias):
        return plain.softmax(field, bias, categories, generator)
    width = max(2, 1 << (categories - 1).bit_length())
    rows = max(2 * _BLOCK // width, 1)
    blocks, groups = field.numel() // categories, field.shape[-1] // categories
    return _launch(
        "softmax", field, key(field, generator), -(-blocks // rows),
        (blocks, groups, bias.contiguous(), categories), ROWS=rows, WIDTH=width,
    )  # fmt: skip


def key(field: Tensor, generator: Generator | None) -> Tensor:
    """Draw the key of one call, on the field's device, where it stays."""
    return torch.empty((), dtype=torch.int64, device=field.device).random_(generator=generator)


def _draw(
    name: str, field: Tensor, generator: Generator | None, *parameters: Tensor | int
) -> Tensor:
    """Run a kernel on every element; its parameters are one row each, or numbers."""
    total, n = field.numel(), field.shape[-1]
    held = (p if isinstance(p, int) else p.contiguous() for p in parameters)
    return _launch(
        name, field, key(field, generator), -(-total // _BLOCK), (total, n, *held),
        BLOCK=_BLOCK, RUN=1 if n % 4 else 4,
    )  # fmt: skip


def _launch(
    name: str, field: Tensor, drawn: Tensor, programs: int, arguments: tuple[Tensor | int, ...],
    **sizes: int,
) -> Tensor:  # fmt: skip
    """Start so many programs of a kernel, which write into a new tensor."""
    field = field.contiguous()
    out = torch.empty_like(field)
    if programs:
        # Triton launches on the current device.
        with torch.cuda.device_of(field):
            getattr(_source(), name)[(programs,)](
                field, out, drawn, *arguments, **sizes, WIDE=field.numel() > _NARROW, **_OPTIONS
            )
    return out


@cache
def _source() -> ModuleType:
    """Import the kernels, and Triton with them."""
    from gibbsian.kernels import triton_source

    return triton_source
