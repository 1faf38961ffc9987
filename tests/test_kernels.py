"""The hot inner step: every kernel's law, tails included.

Fields in float64 go to the plain path, those in float32 and bfloat16 to the compiled kernels.
"""

import math
import os

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Generator

from gibbsian import kernels
from gibbsian.kernels import native, plain

_DRAWS = 20_000

_PATHS = {torch.float64: "plain", torch.float32: "native", torch.bfloat16: "bfloat16"}


def paths(*dtypes: torch.dtype):
    """Run a test on these paths, each under the dtype of its fields."""
    return pytest.mark.parametrize("dtype", dtypes, ids=_PATHS.get)


every_path = paths(*_PATHS)


def _zeros(n: int, dtype=torch.float64) -> torch.Tensor:
    """Return parameters for fields of a dtype: those for bfloat16 are in float32."""
    return torch.zeros(n, dtype=torch.float64 if dtype is torch.float64 else torch.float32)


def _p_value(counts, probabilities) -> float:
    expected = np.asarray(probabilities) * sum(counts)
    return float(stats.chisquare(counts, expected).pvalue)


def _column(value: float, dtype=torch.float64) -> torch.Tensor:
    return torch.full((_DRAWS, 1), value, dtype=dtype)


@every_path
def test_each_dtype_takes_its_path(dtype, monkeypatch, generator):
    field, called = _column(0.0, dtype), []
    for module, name in ((native, "draw"), (plain, "bernoulli")):
        monkeypatch.setattr(module, name, lambda *a, m=module: called.append(m) or field)
    kernels.bernoulli(field, _zeros(1, dtype), generator)
    compiled = dtype is not torch.float64 and os.environ.get("GIBBSIAN_KERNELS") != "plain"
    assert called == [native if compiled else plain]


@every_path
@pytest.mark.parametrize("x", [-2.0, 0.3, 4.0])
def test_bernoulli_and_spin_frequencies(x, dtype, generator):
    field, half = _column(x - 0.5, dtype), _column(x / 2, dtype)
    p = special.expit(float(field[0]) + 0.5)
    ones = int(kernels.bernoulli(field, _zeros(1, dtype) + 0.5, generator).double().sum())
    assert _p_value([_DRAWS - ones, ones], [1 - p, p]) > 1e-4
    p = special.expit(2 * float(half[0]))
    s = kernels.spin(half, _zeros(1, dtype), generator)
    up = int((s == 1).sum())
    assert set(s.unique().tolist()) <= {-1.0, 1.0}
    assert _p_value([_DRAWS - up, up], [1 - p, p]) > 1e-4


@every_path
def test_bits_frequencies(dtype, generator):
    p = torch.tensor([0.0, 0.3, 1.0], dtype=dtype).repeat(_DRAWS, 1)
    ones = kernels.bits(p, generator).double().sum(dim=0)
    assert ones[0] == 0 and ones[2] == _DRAWS
    some = float(p[0, 1])
    assert _p_value([_DRAWS - int(ones[1]), int(ones[1])], [1 - some, some]) > 1e-4


@every_path
@pytest.mark.parametrize("trials", [1, 3, 16, 40])
def test_binomial_frequencies(trials, dtype, generator):
    field = _column(0.4, dtype)
    s = kernels.binomial(field, _zeros(1, dtype) - 1.0, trials, generator)
    p = stats.binom.pmf(range(trials + 1), trials, special.expit(float(field[0]) - 1))
    counts = np.bincount(s[:, 0].long().numpy(), minlength=trials + 1)
    kept = p * _DRAWS >= 5
    rest = [counts[~kept].sum() + 1e-9], [p[~kept].sum() + 1e-9]
    observed, expected = np.append(counts[kept], rest[0]), np.append(p[kept], rest[1])
    assert _p_value(observed, expected / expected.sum()) > 1e-4


@paths(torch.float64, torch.float32)
def test_gaussian_mean_and_standard_deviation(dtype, generator):
    """γ is a precision: the standard deviation is γ^−½, neither γ⁻¹ nor γ."""
    zero = _zeros(1, dtype)
    s = kernels.gaussian(_column(3.0, dtype), zero - 1.0, zero + 4.0, generator)
    assert stats.kstest(s[:, 0].numpy(), stats.norm(0.5, 0.5).cdf).pvalue > 1e-4
    assert stats.kstest(s[:, 0].numpy(), stats.norm(0.5, 0.25).cdf).pvalue < 1e-10


@every_path
def test_softmax_frequencies(dtype, generator):
    field = torch.tensor([[0.2, -1.0, 0.5, 3.0, 0.0, 0.0]], dtype=dtype).repeat(_DRAWS, 1)
    bias = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, 0.5]).to(_zeros(6, dtype))
    s = kernels.softmax(field, bias, 3, generator).double()
    p = torch.softmax((field[0].double() + bias).reshape(2, 3), dim=-1).numpy()
    for block in range(2):
        counts = s[:, 3 * block : 3 * block + 3].sum(dim=0).numpy()
        assert _p_value(counts, p[block]) > 1e-4
    together = s[:, 0] * s[:, 3] - p[0, 0] * p[1, 0]
    joint = p[0, 0] * p[1, 0]
    assert abs(float(together.mean())) < 4.5 * (joint * (1 - joint) / _DRAWS) ** 0.5


@every_path
@pytest.mark.parametrize(("categories", "blocks"), [(1, 4), (2, 5), (7, 3), (200, 2)])
def test_softmax_frequencies_of_many_categories(categories, blocks, dtype, generator):
    n, draws = categories * blocks, 5_000
    field = torch.randn(n, generator=generator).to(dtype)
    bias = torch.randn(n, generator=generator).to(_zeros(n, dtype))
    s = kernels.softmax(field.repeat(draws, 1), bias, categories, generator).double()
    counts = s.sum(dim=0).unflatten(0, (blocks, -1))
    assert counts.sum(dim=1).tolist() == [draws] * blocks
    expected = draws * torch.softmax((field.double() + bias).unflatten(0, (blocks, -1)), dim=-1)

    def p_value(counts):
        kept = expected >= 5
        square = ((counts - expected).square() / expected)[kept].sum()
        # Counts that are kept all of them add up.
        freedom = int(kept.sum()) - int(kept.all(dim=1).sum())
        return stats.chi2.sf(float(square), freedom) if freedom else 1.0

    assert p_value(counts) > 1e-4
    if categories > 1:
        assert p_value(counts.roll(1, dims=1)) < 1e-8


@paths(torch.float32, torch.bfloat16)
def test_softmax_of_categories_far_apart(dtype, generator):
    """Those below e^−87 of the first are never drawn, and one at e^−6 of it at its rate."""
    field = torch.tensor([-1e4, -200.0, 0.0, -6.0, -88.0, -3e38, -math.inf], dtype=dtype)
    draws = 400_000
    s = kernels.softmax(field.repeat(draws, 1), torch.zeros(7), 7, generator).float().sum(dim=0)
    assert s[[0, 1, 4, 5, 6]].tolist() == [0] * 5
    p = special.expit(-6.0)
    assert _p_value([int(s[2]), int(s[3])], [1 - p, p]) > 1e-4


def test_softmax_never_draws_a_category_without_probability(monkeypatch, generator):
    field = torch.tensor([[-1e4, 0.0, 0.0, -1e4]])
    bias = torch.zeros(4)
    s = kernels.softmax(field.repeat(_DRAWS, 1), bias, 4, generator)
    assert not bool(s[:, [0, 3]].any())
    for edge in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda *a, edge=edge, **k: torch.full((1, 1, 1), edge))
        assert plain.softmax(field, bias, 4, generator)[0, 0] == 0
        assert plain.softmax(field, bias, 4, generator)[0, 3] == 0


@every_path
def test_extreme_probabilities_are_certain(dtype, generator):
    high, low = _column(1e4, dtype), _column(-1e4, dtype)
    zero = _zeros(1, dtype)
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


def _truncated(
    z: float, gamma: float, generator: Generator, dtype=torch.float64, module=kernels
) -> np.ndarray:
    """Draw with precision γ, and return in units where the precision is 1."""
    root = gamma**0.5
    bias = torch.tensor([0.5], dtype=dtype)
    s = module.truncated_gaussian(
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


@pytest.mark.parametrize(
    ("z", "draws"),
    [([8, 5, 3, 2, 1, 0.5, 0, -0.25, -3, -5, -8, -20, -40], 20_000), ([-0.26, -1, -2], 400_000)],
    ids=["everywhere", "where many are rejected"],
)
def test_compiled_truncated_gaussian(z, draws, generator):
    """From 8 deviations below the mean to 40 above, where two ways to draw it meet at 0.257."""
    z, root = torch.tensor(z), 0.3**0.5
    bias, gamma = torch.full((len(z),), 0.5), torch.full((len(z),), 0.3)
    s = kernels.truncated_gaussian((z * root - 0.5).repeat(draws, 1), bias, gamma, generator)
    found = []
    for x, a in zip((s * root).T.double().numpy(), -z.double().numpy(), strict=True):

        def cdf(x, a=a):
            return -np.expm1(special.log_ndtr(-a - x) - special.log_ndtr(-a))

        assert (x >= 0).all()
        found.append(stats.kstest(x, cdf).pvalue)
        assert stats.kstest(1.1 * x[:20_000], cdf).pvalue < 1e-4
    assert min(found) > 1e-4


@paths(torch.float64, torch.float32)
@pytest.mark.parametrize("z", [-40.0, -200.0, -1e3, -9e3, -1.1e4, -1e6, -1e9])
def test_truncated_gaussian_far_below_zero(z, dtype, generator):
    s = _truncated(z, 1.0, generator, dtype)
    assert np.isfinite(s).all() and (s >= 0).all()
    assert stats.kstest(s, _tail_cdf(z)).pvalue > 1e-4
    assert stats.kstest(1.1 * s, _tail_cdf(z)).pvalue < 1e-4


@paths(torch.float64, torch.float32)
@pytest.mark.parametrize("z", [40.0, 1e3, 1e6])
def test_truncated_gaussian_far_above_zero_is_gaussian(z, dtype, generator):
    if dtype is torch.float32:
        z = min(z, 1e4)  # at 10⁶ its steps are a sixteenth
    s = _truncated(z, 1.0, generator, dtype)
    assert stats.kstest(s - z, "norm").pvalue > 1e-4
    assert stats.kstest(1.1 * (s - z), "norm").pvalue < 1e-4


@pytest.mark.parametrize("z", [-1e3, -40.0, 0.0, 40.0])
def test_truncated_gaussian_in_single_precision(z, generator):
    s = _truncated(z, 1.0, generator, torch.float32, plain)
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
        lambda k, f, b, g: k.bernoulli(f, b, g),
        lambda k, f, b, g: k.spin(f, b, g),
        lambda k, f, b, g: k.binomial(f, b, 3, g),
        lambda k, f, b, g: k.binomial(f, b, 30, g),
        lambda k, f, b, g: k.gaussian(f, b, b.exp(), g),
        lambda k, f, b, g: k.truncated_gaussian(f, b, b.exp(), g),
        lambda k, f, b, g: k.softmax(f, b, 2, g),
    ],
    ids=["bernoulli", "spin", "binomial", "binomial-30", "gaussian", "truncated", "softmax"],
)
@pytest.mark.parametrize("module", [kernels, plain], ids=["fastest", "plain"])
@every_path
def test_kernels_keep_their_input_dtype_and_graph(draw, dtype, module):
    f = torch.randn(2, 3, 4, generator=Generator().manual_seed(1)).to(dtype).requires_grad_()
    bias = torch.linspace(-1, 1, 4).to(_zeros(4, dtype))
    before = f.detach().clone(), bias.clone()
    state = torch.get_rng_state()
    one, two = (draw(module, f, bias, Generator().manual_seed(5)) for _ in range(2))
    assert one.dtype == dtype and one.shape == f.shape and not one.requires_grad
    assert torch.equal(one, two)
    assert torch.equal(f, before[0]) and torch.equal(bias, before[1])
    assert torch.equal(state, torch.get_rng_state())
