"""The steps that transforms are made of: one small class each."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Generator, Tensor

from gibbsian.data.columns import Columns
from gibbsian.errors import DataError, GibbsianWarning

Chunks = Callable[[], Iterator[Tensor]]


class Step(ABC):
    """One step of a transform: ``learn`` from training rows, ``bind`` to columns, then ``apply``.

    Attributes
    ----------
    text : the step as a user writes it, such as "threshold:0.5".
    learned : names of the attributes that ``learn`` sets and that are stored with a run.
    random : whether ``apply`` draws anew at each visit.
    """

    learned: ClassVar[tuple[str, ...]] = ()
    text: str
    random: bool = False

    @abstractmethod
    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Set the learned attributes from the training rows, one pass over ``chunks()``."""

    @abstractmethod
    def bind(self, columns: Columns) -> Columns:
        """Fix which columns are changed; return what they become."""

    @abstractmethod
    def apply(
        self, x: Shaped[Tensor, "batch n"], generator: Generator | None
    ) -> Shaped[Tensor, "batch m"]:
        """The transformed rows."""

    def expected(
        self, x: Shaped[Tensor, "batch n"], generator: Generator | None
    ) -> Shaped[Tensor, "batch m"]:
        """The mean of ``apply`` over its draws, where a step knows it; else one draw."""
        return self.apply(x, generator)

    @abstractmethod
    def invert(self, y: Shaped[Tensor, "batch m"]) -> Shaped[Tensor, "batch n"]:
        """Back to the units of the input, as far as they can be had."""

    def spread(self, sigma: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """Standard deviation of normal noise in each output column, from that in the input's."""
        return sigma


def blend(mask: Bool[Tensor, " n"] | None, new: Tensor, old: Tensor) -> Tensor:
    """``new`` in the columns of ``mask`` (None: everywhere), ``old`` elsewhere."""
    return new if mask is None else torch.where(mask, new, old.to(new.dtype))


def floating(x: Tensor) -> Tensor:
    """``x`` as float32, or float64 where float32 could not hold its values."""
    if x.dtype == torch.float32:
        return x
    wide = x.dtype in (torch.float64, torch.int64, torch.int32)
    return x.to(torch.float64 if wide else torch.float32)


def uniform_words(shape: torch.Size, device: torch.device, generator: Generator | None) -> Tensor:
    """Uniform int16 numbers in [-2^15, 2^15), four from each 64-bit word of the generator."""
    count = shape.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].view(shape)


def check_unit(x: Tensor, step: str) -> None:
    """Raise a DataError unless all of ``x`` lies in [0, 1]."""
    low, high = (float(v) for v in torch.aminmax(x))
    if low < 0 or high > 1:
        raise DataError(
            f"{step} needs values in [0, 1], and these go from {low:g} to {high:g}: put the "
            "transform 'scale' before it."
        )


@final
class Identity(Step):
    """The values as they are."""

    text = "identity"

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Nothing to learn."""

    def bind(self, columns: Columns) -> Columns:
        """The same columns."""
        return columns

    def apply(self, x: Tensor, generator: Generator | None) -> Tensor:
        """``x``."""
        return x

    def invert(self, y: Tensor) -> Tensor:
        """``y``."""
        return y


@final
class Threshold(Step):
    """1 where the value exceeds ``level``, else 0; for uint8 rows the level is a share of 255.

    Its inverse is black and white in the units of the input (0 and 255 for uint8, else 0 and 1).
    """

    learned = ("top",)

    def __init__(self, level: float = 0.5) -> None:
        self.level = level
        self.top = 1.0
        self.text = f"threshold:{level:g}"
        self._mask: Tensor | None = None

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Find what stands for white."""
        self.top = white(chunks)

    def bind(self, columns: Columns) -> Columns:
        """Active columns become binary."""
        self._mask = columns.active()
        return columns.turned("binary")

    def apply(self, x: Tensor, generator: Generator | None) -> Tensor:
        """1[x > level · top]."""
        bits = torch.gt(x, self.level * self.top, out=torch.empty(x.shape, device=x.device))
        return blend(self._mask, bits, x)

    def invert(self, y: Tensor) -> Tensor:
        """``top · y``."""
        return blend(self._mask, y * self.top, y)

    def spread(self, sigma: Tensor) -> Tensor:
        """None: bits have no normal noise."""
        return blend(self._mask, torch.zeros_like(sigma), sigma)


def white(chunks: Chunks) -> float:
    """The value that stands for 1: 255 for uint8 rows, unless they are all 0 and 1."""
    for x in chunks():
        if x.dtype != torch.uint8:
            return 1.0
        if int(x.max()) > 1:
            return 255.0
    return 1.0


@final
class StochasticBinarise(Step):
    """Bits drawn anew at each visit, 1 with a probability equal to the grey level.

    uint8 level g stands for g/255 and other values for themselves, in [0, 1]. For uint8 one 16-bit
    uniform number decides each bit, so the probability is g/255 within 2^-16, and exactly 0 and 1
    at black and white; for other dtypes it is within 2^-24. The inverse is the grey level
    itself, in the units of the input.
    """

    learned = ("top",)
    text = "stochastic-binarise"
    random = True

    def __init__(self) -> None:
        self.top = 1.0
        self._mask: Tensor | None = None

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Find what stands for white."""
        self.top = white(chunks)

    def bind(self, columns: Columns) -> Columns:
        """Active columns become binary."""
        self._mask = columns.active()
        return columns.turned("binary")

    def apply(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Bernoulli(x / top)."""
        if x.dtype == torch.uint8 and self.top == 255:
            u = uniform_words(x.shape, x.device, generator)
            # White has threshold 2^15 - 1; without this it would be black once in 2^16.
            u.clamp_(max=2**15 - 2)
            threshold = x.to(torch.int16).mul_(257).sub_(2**15)
            return torch.lt(u, threshold, out=torch.empty(x.shape, device=x.device))
        grey = x.to(torch.float32)
        check_unit(grey if self._mask is None else grey[:, self._mask], self.text)
        u = torch.rand(x.shape, generator=generator, device=x.device)
        return blend(self._mask, (u < grey).float(), x)

    def expected(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Probabilities of a 1: x / top."""
        grey = x.to(torch.float32)
        return blend(self._mask, grey / self.top if x.dtype == torch.uint8 else grey, x)

    def invert(self, y: Tensor) -> Tensor:
        """``top · y``."""
        return blend(self._mask, y * self.top, y)

    def spread(self, sigma: Tensor) -> Tensor:
        """None: bits have no normal noise."""
        return blend(self._mask, torch.zeros_like(sigma), sigma)


@final
class Scale(Step):
    """(x - low) / (high - low), cut to [0, 1].

    uint8 rows have low = 0 and high = 255; others the least and greatest training value, over all
    columns together or, with ``each``, for every column. Later rows beyond the training range are
    cut to it, which the inverse does not undo; a constant column becomes 0.
    """

    learned = ("low", "high")

    def __init__(self, each: bool = False) -> None:
        self.each = each
        self.text = "scale-columns" if each else "scale"
        self.low = torch.zeros(1, dtype=torch.float64)
        self.high = torch.ones(1, dtype=torch.float64)
        self._mask: Tensor | None = None

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Find the range of the training rows."""
        low = torch.full((columns.width,), torch.inf, dtype=torch.float64)
        high = -low
        for x in chunks():
            if x.dtype == torch.uint8:
                low, high = torch.zeros_like(low), torch.full_like(high, 255.0)
                break
            low = torch.minimum(low, x.amin(0).double())
            high = torch.maximum(high, x.amax(0).double())
        mask = columns.active()
        if not self.each:
            chosen = slice(None) if mask is None else mask
            low, high = low[chosen].min().view(1), high[chosen].max().view(1)
        warn_constant(self.text, low == high, mask if self.each else None, columns)
        self.low, self.high = low, high

    def bind(self, columns: Columns) -> Columns:
        """Active columns become real."""
        self._mask = columns.active()
        return columns.turned("real")

    def apply(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The values cut to [0, 1]."""
        x = floating(x)
        low, span = self.low.to(x.dtype), self._span().to(x.dtype)
        return blend(self._mask, ((x - low) / span).clamp_(0, 1), x)

    def invert(self, y: Tensor) -> Tensor:
        """``low + (high - low) y``."""
        x = (self.low + self._span() * y.double()).to(y.dtype)
        return blend(self._mask, x, y)

    def spread(self, sigma: Tensor) -> Tensor:
        """``σ / (high - low)``, but for what is cut."""
        return blend(self._mask, sigma / self._span(), sigma)

    def _span(self) -> Float[Tensor, " n"]:
        span = self.high - self.low
        return torch.where(span > 0, span, 1.0)


@final
class Standardise(Step):
    """(x - mean) / sd, with the mean and standard deviation of the training rows.

    For every column, or, with ``together``, one mean and one sd for all of them, which keeps
    the relative scale of pixels. A constant column becomes 0 and is warned of.
    """

    learned = ("mean", "sd")

    def __init__(self, together: bool = False) -> None:
        self.together = together
        self.text = "standardise-global" if together else "standardise"
        self.mean = torch.zeros(1, dtype=torch.float64)
        self.sd = torch.ones(1, dtype=torch.float64)
        self._mask: Tensor | None = None

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Mean and variance in float64, merged chunk by chunk (Chan, Golub and LeVeque 1979)."""
        mask = columns.active()
        count, mean, squares = 0, torch.zeros(1).double(), torch.zeros(1).double()
        for chunk in chunks():
            x = chunk.double() if mask is None else chunk[:, mask].double()
            x = x.reshape(-1, 1) if self.together else x
            here = x.mean(0)
            delta, total = here - mean, count + len(x)
            squares = (
                squares + (x - here).square().sum(0) + delta.square() * (count * len(x) / total)
            )
            mean = mean + delta * (len(x) / total)
            count = total
        sd = (squares / max(count, 1)).sqrt()
        flat = sd <= 1e-12 * mean.abs()
        sd = torch.where(flat, 1.0, sd)
        if mask is not None and not self.together:
            full = torch.zeros(columns.width).double(), torch.ones(columns.width).double()
            full[0][mask], full[1][mask] = mean, sd
            spread = torch.zeros_like(mask)
            spread[mask] = flat
            mean, sd, flat = *full, spread
        warn_constant(self.text, flat, None, columns)
        self.mean, self.sd = mean, sd

    def bind(self, columns: Columns) -> Columns:
        """Active columns become real."""
        self._mask = columns.active()
        return columns.turned("real")

    def apply(self, x: Tensor, generator: Generator | None) -> Tensor:
        """``(x - mean) / sd``."""
        x = floating(x)
        return blend(self._mask, (x - self.mean.to(x.dtype)).div_(self.sd.to(x.dtype)), x)

    def invert(self, y: Tensor) -> Tensor:
        """``mean + sd · y``."""
        return blend(self._mask, (self.mean + self.sd * y.double()).to(y.dtype), y)

    def spread(self, sigma: Tensor) -> Tensor:
        """``σ / sd``."""
        return blend(self._mask, sigma / self.sd, sigma)


def warn_constant(step: str, flat: Tensor, among: Tensor | None, columns: Columns) -> None:
    """Warn of the columns in ``flat``; a single entry stands for all of them."""
    if among is not None:
        flat = flat & among
    if not bool(flat.any()):
        return
    if flat.numel() == 1 and columns.width > 1:
        said = "all training values are equal"
    else:
        where = [columns.label(int(i)) for i in flat.nonzero().flatten()]
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        said = f"{len(where)} constant training column(s), {', '.join(where[:3])}{more},"
    warnings.warn(
        f"{step}: {said} became 0, and a model learns nothing from them: drop them, or add noise "
        "with 'dequantise'.",
        GibbsianWarning,
        stacklevel=2,
    )


@final
class Dequantise(Step):
    """x + σ₀ ε with ε ~ N(0, 1) drawn anew at each visit; the inverse leaves the noise in.

    `gibbsian.remove_noise` takes it out of a machine's rows.

    σ₀ is in the units of the values that reach this step: after "standardise", in training standard
    deviations; on raw uint8 rows, in grey levels of 255.
    """

    def __init__(self, sigma0: float = 0.1) -> None:
        if not 0 <= sigma0 < float("inf"):
            raise DataError(f"dequantise needs a noise sigma0 of at least 0, and got {sigma0}.")
        self.sigma0 = sigma0
        self.random = sigma0 > 0
        self.text = f"dequantise:{sigma0:g}"
        self._mask: Tensor | None = None

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Nothing to learn."""

    def bind(self, columns: Columns) -> Columns:
        """Active columns become real."""
        self._mask = columns.active()
        return columns.turned("real")

    def apply(self, x: Tensor, generator: Generator | None) -> Tensor:
        """``x + σ₀ ε``."""
        x = floating(x)
        if not self.random:
            return x
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return blend(self._mask, noise.mul_(self.sigma0).add_(x), x)

    def expected(self, x: Tensor, generator: Generator | None) -> Tensor:
        """``x``."""
        return floating(x)

    def invert(self, y: Tensor) -> Tensor:
        """``y``."""
        return y

    def spread(self, sigma: Tensor) -> Tensor:
        """Variances add up."""
        return blend(self._mask, (sigma**2 + self.sigma0**2).sqrt(), sigma)


@final
class Spin(Step):
    """2x - 1: {0, 1} to {-1, +1}."""

    text = "spin"

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    def learn(self, chunks: Chunks, columns: Columns) -> None:
        """Nothing to learn."""

    def bind(self, columns: Columns) -> Columns:
        """Binary columns become spins; a DataError if there is none, or a real one."""
        kinds = set(columns.kinds)
        if "binary" not in kinds or "real" in kinds:
            raise DataError(
                "spin turns {0, 1} into {-1, +1}, and these columns are not binary: put "
                "'threshold' or 'stochastic-binarise' before it."
            )
        self._mask = columns.active()
        return columns.turned("spin")

    def apply(self, x: Tensor, generator: Generator | None) -> Tensor:
        """``2x - 1``."""
        return blend(self._mask, x.to(torch.float32) * 2 - 1, x)

    def invert(self, y: Tensor) -> Tensor:
        """``(y + 1) / 2``."""
        return blend(self._mask, (y + 1) / 2, y)
