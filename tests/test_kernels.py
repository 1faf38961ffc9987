"""The hot inner step: every kernel's law, tails included."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Generator

from gibbsian import kernels
from gibbsian.kernels import plain

_DRAWS = 20_000


def _zeros(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.float64)


def _p_value(counts, probabilities) -> float:
    expected = np.asarray(probabilities) * sum(counts)
    return float(stats.chisquare(counts, expected).pvalue)


def _column(value: float, dtype=torch.float64) -> torch.Tensor:
    return torch.full((_DRAWS, 1), value, dtype=dtype)


@pytest.mark.parametrize("x", [-2.0, 0.3, 4.0])
def test_bernoulli_and_spin_frequencies(x, generator):
    p = 1 / (1 + math.exp(-x))
    ones = int(kernels.bernoulli(_column(x - 0.5), _zeros(1) + 0.5, generator).sum())
    assert _p_value([_DRAWS - ones, ones], [1 - p, p]) > 1e-4
    s = kernels.spin(_column(x / 2), _zeros(1), generator)
    up = int((s == 1).sum())
    assert set(s.unique().tolist()) <= {-1.0, 1.0}
    assert _p_value([_DRAWS - up, up], [1 - p, p]) > 1e-4


def test_bits_frequencies(generator):
    p = torch.tensor([0.0, 0.3, 1.0]).repeat(_DRAWS, 1)
    ones = kernels.bits(p, generator).sum(dim=0)
    assert ones[0] == 0 and ones[2] == _DRAWS
    assert _p_value([_DRAWS - int(ones[1]), int(ones[1])], [0.7, 0.3]) > 1e-4


@pytest.mark.parametrize("trials", [1, 3, 16, 40])
def test_binomial_frequencies(trials, generator):
    s = kernels.binomial(_column(0.4), _zeros(1) - 1.0, trials, generator)
    p = stats.binom.pmf(range(trials + 1), trials, special.expit(-0.6))
    counts = np.bincount(s[:, 0].long().numpy(), minlength=trials + 1)
    kept = p * _DRAWS >= 5
    rest = [counts[~kept].sum() + 1e-9], [p[~kept].sum() + 1e-9]
    observed, expected = np.append(counts[kept], rest[0]), np.append(p[kept], rest[1])
    assert _p_value(observed, expected / expected.sum()) > 1e-4


def test_gaussian_mean_and_standard_deviation(generator):
    """γ is a precision: the standard deviation is γ^−½, neither γ⁻¹ nor γ."""
    s = kernels.gaussian(_column(3.0), _zeros(1) - 1.0, _zeros(1) + 4.0, generator)
    assert stats.kstest(s[:, 0].numpy(), stats.norm(0.5, 0.5).cdf).pvalue > 1e-4
    assert stats.kstest(s[:, 0].numpy(), stats.norm(0.5, 0.25).cdf).pvalue < 1e-10


def test_softmax_frequencies(generator):
    field = torch.tensor([[0.2, -1.0, 0.5, 3.0, 0.0, 0.0]]).double().repeat(_DRAWS, 1)
    bias = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, 0.5]).double()
    s = kernels.softmax(field, bias, 3, generator)
    p = torch.softmax((field[0] + bias).reshape(2, 3), dim=-1).numpy()
    for block in range(2):
        counts = s[:, 3 * block : 3 * block + 3].sum(dim=0).numpy()
        assert _p_value(counts, p[block]) > 1e-4
    together = s[:, 0] * s[:, 3] - p[0, 0] * p[1, 0]
    joint = p[0, 0] * p[1, 0]
    assert abs(float(together.mean())) < 4.5 * (joint * (1 - joint) / _DRAWS) ** 0.5


def test_softmax_never_draws_a_category_without_probability(monkeypatch, generator):
    field = torch.tensor([[-1e4, 0.0, 0.0, -1e4]])
    bias = torch.zeros(4)
    s = kernels.softmax(field.repeat(_DRAWS, 1), bias, 4, generator)
    assert not bool(s[:, [0, 3]].any())
    for edge in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda *a, edge=edge, **k: torch.full((1, 1, 1), edge))
        assert kernels.softmax(field, bias, 4, generator)[0, 0] == 0
        assert kernels.softmax(field, bias, 4, generator)[0, 3] == 0


def test_extreme_probabilities_are_certain(generator):
    high, low = _column(1e4, torch.float32), _column(-1e4, torch.float32)
    zero = torch.zeros(1)
    assert bool((kernels.bernoulli(high, zero, generator) == 1).all())
    assert bool((kernels.bernoulli(low, zero, generator) == 0).all())
    assert bool((kernels.spin(high, zero, generator) == 1).all())
    for trials in (3, 40):
        assert bool((kernels.binomial(high, zero, trials, generator) == trials).all())
        assert bool((kernels.binomial(low, zero, trials, generator) == 0).all())


# The truncated Gaussian.


def _tail_cdf(z: float):
    """Return the distribution function of x ~ N(z, 1) given x ≥ 0, for z < 0, without underflow."""
    a = -z

    def cdf(x):
        ratio = special.erfcx((a + x) / 2**0.5) / special.erfcx(a / 2**0.5)
        return -np.expm1(np.log(ratio) - a * x - x * x / 2)

    return cdf


def _truncated(z: float, gamma: float, generator: Generator, dtype=torch.float64) -> np.ndarray:
    """Draw with precision γ, and return in units where the precision is 1."""
    root = gamma**0.5
    bias = torch.tensor([0.5], dtype=dtype)
    s = plain.truncated_gaussian(
        _column(z * root - 0.5, dtype), bias, torch.tensor([gamma], dtype=dtype), generator
    )
    assert s.dtype == dtype
    return s[:, 0].double().numpy() * root


@pytest.mark.parametrize("gamma", [1.0, 0.3])
@pytest.mark.parametrize("z", [-40.0, -8.0, -5.5, -1.0, 0.0, 0.5, 3.0, 8.0, 40.0])
def test_truncated_gaussian_is_scipys(z, gamma, generator):
    s = _truncated(z, gamma, generator)
    assert np.isfinite(s).all() and (s >= 0).all()
    truth = stats.truncnorm(-z, np.inf, loc=z)
    assert stats.kstest(s, truth.cdf).pvalue > 1e-4
    assert stats.kstest(s, stats.truncnorm(-z, np.inf, loc=z, scale=1.1).cdf).pvalue < 1e-4


@pytest.mark.parametrize("z", [-40.0, -200.0, -1e3, -9e3, -1.1e4, -1e6, -1e9])
def test_truncated_gaussian_far_below_zero(z, generator):
    s = _truncated(z, 1.0, generator)
    assert np.isfinite(s).all() and (s >= 0).all()
    assert stats.kstest(s, _tail_cdf(z)).pvalue > 1e-4
    assert stats.kstest(1.1 * s, _tail_cdf(z)).pvalue < 1e-4


@pytest.mark.parametrize("z", [40.0, 1e3, 1e6])
def test_truncated_gaussian_far_above_zero_is_gaussian(z, generator):
    s = _truncated(z, 1.0, generator)
    assert stats.kstest(s - z, "norm").pvalue > 1e-4
    assert stats.kstest(1.1 * (s - z), "norm").pvalue < 1e-4


@pytest.mark.parametrize("z", [-1e3, -40.0, 0.0, 40.0])
def test_truncated_gaussian_in_single_precision(z, generator):
    s = _truncated(z, 1.0, generator, torch.float32)
    assert np.isfinite(s).all() and (s >= 0).all()
    cdf = _tail_cdf(z) if z < 0 else stats.truncnorm(-z, np.inf, loc=z).cdf
    assert stats.kstest(s, cdf).pvalue > 1e-4


@pytest.mark.parametrize("z", [-1e30, -1e12, -1e3, -40.0, 0.0, 40.0, 1e3, 1e12, 1e30])
@pytest.mark.parametrize("u", [0.0, 1e-300, 0.5, 1 - 2**-53])
def test_truncated_gaussian_is_never_nan(z, u, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.full((1, 1), u, dtype=torch.float64))
    field, one = torch.full((1, 1), z, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    s = float(plain.truncated_gaussian(field, 0 * one, one, None))
    assert math.isfinite(s) and s >= 0
    if abs(z) <= 40:
        # The inverse distribution function, at the far quantiles too.
        log_tail = math.log(max(u, 2.0**-1022)) + special.log_ndtr(z)
        assert special.log_ndtr(z - s) == pytest.approx(log_tail, rel=1e-9, abs=1e-12) or s == 0


@pytest.mark.parametrize(
    "draw",
    [
        lambda f, b, g: kernels.bernoulli(f, b, g),
        lambda f, b, g: kernels.spin(f, b, g),
        lambda f, b, g: kernels.binomial(f, b, 3, g),
        lambda f, b, g: kernels.binomial(f, b, 30, g),
        lambda f, b, g: kernels.gaussian(f, b, b.exp(), g),
        lambda f, b, g: kernels.truncated_gaussian(f, b, b.exp(), g),
        lambda f, b, g: kernels.softmax(f, b, 2, g),
    ],
    ids=["bernoulli", "spin", "binomial", "binomial-30", "gaussian", "truncated", "softmax"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_keep_their_input_dtype_and_graph(draw, dtype):
    f = torch.randn(2, 3, 4, generator=Generator().manual_seed(1)).to(dtype).requires_grad_()
    bias = torch.linspace(-1, 1, 4, dtype=dtype)
    before = f.detach().clone(), bias.clone()
    state = torch.get_rng_state()
    one, two = (draw(f, bias, Generator().manual_seed(5)) for _ in range(2))
    assert one.dtype == dtype and one.shape == f.shape and not one.requires_grad
    assert torch.equal(one, two)
    assert torch.equal(f, before[0]) and torch.equal(bias, before[1])
    assert torch.equal(state, torch.get_rng_state())
