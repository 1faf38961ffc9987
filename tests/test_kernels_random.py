"""The randomness of the compiled kernels; generators that are wrong on purpose must fail.

Each check takes draws and returns a p-value, so that one and the same check passes for the kernels
and is seen to fail for every wrong generator.
"""

import math
import os

import numpy as np
import pytest
import torch
from kernel_families import FAMILIES, one_a_unit
from scipy import stats
from torch import Generator, Tensor

from gibbsian import kernels
from gibbsian.kernels import plain

RIGHT, WRONG = 1e-4, 1e-8

pytestmark = pytest.mark.skipif(
    os.environ.get("GIBBSIAN_KERNELS") == "plain", reason="the compiled kernels are turned off"
)


# Checks.


def worst(z: Tensor) -> float:
    """Judge numbers that should be standard normal: by the largest, and by their sum of squares."""
    z = z.double().flatten()
    largest = 2 * stats.norm.sf(float(z.abs().max())) * len(z)
    total, n = float(z.square().sum()), len(z)
    return min(largest, 2 * stats.chi2.sf(total, n), 2 * stats.chi2.cdf(total, n), 1.0)


def frequency(draws: Tensor, p: float) -> float:
    """Judge the frequency of ones in each column of (samples, units)."""
    samples = len(draws)
    return worst((draws.double().sum(dim=0) - samples * p) / math.sqrt(samples * p * (1 - p)))


def correlation(draws: Tensor) -> float:
    """Judge the correlation of every pair of columns of (samples, variables)."""
    x = draws.float()
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    z = (x.T @ x) * (math.sqrt(len(x) - 1) / len(x))
    above = torch.ones_like(z, dtype=torch.bool).triu(diagonal=1)
    return worst(z[above])


def lags(draws: Tensor, most: int = 2000) -> float:
    """Judge the autocorrelations of a sequence, at all lags up to `most`."""
    x = draws.flatten().double()
    x = (x - x.mean()) / x.std(correction=0)
    power = torch.fft.rfft(x, n=2 * len(x)).abs().square()
    return worst(torch.fft.irfft(power)[1 : most + 1] / math.sqrt(len(x)))


def joint(draws: Tensor, p: float) -> float:
    """Judge the joint law of every eight columns of (samples, variables), bits with P(1) = p."""
    groups = draws[:, : draws.shape[1] // 8 * 8].long().reshape(-1, 8)
    codes = (groups * 2 ** torch.arange(8)).sum(dim=1)
    ones = np.array([code.bit_count() for code in range(256)])
    expected = len(codes) * p**ones * (1 - p) ** (8 - ones)
    assert expected.min() > 5
    return float(stats.chisquare(torch.bincount(codes, minlength=256).numpy(), expected).pvalue)


def views(draws: Tensor) -> dict[str, Tensor]:
    """Lay (steps, chains, units) out as (samples, variables), for what should be independent."""
    return {
        "units": draws.flatten(0, 1),
        "chains": draws.transpose(1, 2).flatten(0, 1),
        "steps": draws.flatten(1).T,
        "chains and units": draws.flatten(1),
        "units of four steps": draws.unflatten(0, (-1, 4)).transpose(1, 2).flatten(0, 1).flatten(1),
        # Words of one counter go to columns a quarter of a row apart, a pair of normals half a row.
        "partners": draws[..., : draws.shape[-1] // 8 * 8].unflatten(-1, (8, -1)).mT.flatten(0, 2),
    }


def independence(draws: Tensor) -> dict[str, float]:
    """Judge all correlations of (steps, chains, units)."""
    found = {name: correlation(view) for name, view in views(draws).items()}
    return found | {"lags": lags(draws), "lags in steps": lags(draws.movedim(0, -1))}


def agreement(one: Tensor, two: Tensor, cells: int = 8) -> float:
    """Judge whether two samples of one shape (draws, units) have the same law in every column.

    Both are counted in cells between quantiles of the two together; χ² = Σ (a − b)²/(a + b).
    """
    both = torch.cat([one, two]).double().sort(dim=0).values
    edges = both[[len(both) * i // cells for i in range(1, cells)]].unsqueeze(1)
    ends = torch.full((1, one.shape[1]), len(one)), torch.zeros(1, one.shape[1])
    above = [(sample.double() >= edges).sum(dim=1) for sample in (one, two)]
    a, b = (-torch.cat([ends[0], counts, ends[1]]).diff(dim=0) for counts in above)
    square = ((a - b).square() / (a + b).clamp(min=1)).sum(dim=0).double().numpy()
    freedom = (a + b > 0).sum(dim=0).numpy() - 1
    pooled = stats.chi2.sf(square.sum(), max(freedom.sum(), 1))
    each = stats.chi2.sf(square, np.maximum(freedom, 1)).min() * len(square)
    return float(min(pooled, each, 1.0))


# Draws of (steps, chains, units), right and wrong.


def bits(steps=300, chains=16, n=64, p=0.5, seed=1) -> Tensor:
    """Draw with the compiled kernel."""
    generator = Generator().manual_seed(seed)
    field, bias = torch.full((chains, n), math.log(p / (1 - p))), torch.zeros(n)
    return torch.stack([kernels.bernoulli(field, bias, generator) for _ in range(steps)])


def same_key_every_step() -> Tensor:
    return torch.stack([bits(1, seed=7)[0] for _ in range(300)])


def same_key_every_other_step() -> Tensor:
    return bits(150).repeat_interleave(2, dim=0)


def next_step_reversed() -> Tensor:
    draws = bits(150)
    return torch.stack([draws, draws.flip(-1)], dim=1).flatten(0, 1)


def row_not_in_the_counter() -> Tensor:
    return bits(chains=1).expand(-1, 16, -1)


def words_shared_by_columns() -> Tensor:
    return bits()[..., torch.arange(64) % 32]


def a_fifth_of_one_word_shared() -> Tensor:
    draws = bits()
    again = torch.rand(draws.shape[:2], generator=Generator().manual_seed(3)) < 0.2
    draws[..., 1] = torch.where(again, draws[..., 0], draws[..., 1])
    return draws


@pytest.mark.parametrize("p", [0.5, 0.3, 0.02])
def test_frequencies(p):
    draws = bits(p=p, seed=2).flatten(0, 1)
    assert frequency(draws, p) > RIGHT
    assert frequency(draws.flatten().unsqueeze(1), p) > RIGHT


def test_a_threshold_slightly_off_fails():
    """σ(x + 0.05) in place of σ(x)."""
    off = 1 / (1 + math.exp(-0.05))
    assert frequency(bits(p=off).flatten(0, 1), 0.5) < WRONG


@pytest.mark.parametrize("name", FAMILIES)
def test_units_chains_and_steps_are_uncorrelated(name):
    generator = Generator().manual_seed(4)
    field, bias = torch.zeros(16, 64), torch.full((64,), 0.3)
    draws = [FAMILIES[name](kernels, field, bias, generator) for _ in range(300)]
    found = independence(one_a_unit(name, torch.stack(draws)))
    assert min(found.values()) > RIGHT, found


def test_rows_of_several_threads_are_uncorrelated():
    torch.set_num_threads(3)
    draws = bits(steps=12, chains=600, n=33, seed=8)
    assert correlation(draws.transpose(0, 1).flatten(1)) > RIGHT
    assert correlation(views(draws)["chains"]) > RIGHT
    assert lags(draws) > RIGHT


@pytest.mark.parametrize("p", [0.5, 0.35])
def test_eight_bits_have_their_joint_law(p):
    draws = bits(p=p, seed=6)
    found = {name: joint(view, p) for name, view in views(draws).items()}
    assert min(found.values()) > RIGHT, found


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        (same_key_every_step, {"steps", "lags in steps", "joint law of steps"}),
        (same_key_every_other_step, {"steps", "lags in steps", "joint law of steps"}),
        (next_step_reversed, {"units of four steps"}),
        (row_not_in_the_counter, {"chains", "lags", "joint law of chains"}),
        (words_shared_by_columns, {"units", "lags", "joint law of partners"}),
        (a_fifth_of_one_word_shared, {"units"}),
    ],
    ids=lambda x: getattr(x, "__name__", "seen"),
)
def test_wrong_generators_fail(wrong, seen):
    draws = wrong()
    laws = {f"joint law of {name}": joint(view, 0.5) for name, view in views(draws).items()}
    found = independence(draws) | laws
    assert all(found[name] < WRONG for name in seen), found


# Gaussians.


def _normals(rows: int, n: int, seed: int = 11) -> Tensor:
    generator, zero = Generator().manual_seed(seed), torch.zeros(n)
    return kernels.gaussian(torch.zeros(rows, n), zero, zero + 1, generator)


def tails(x: Tensor) -> float:
    """Judge counts of standard normals between edges out to 5 standard deviations."""
    outer = torch.tensor([1.0, 2, 3, 3.5, 4, 4.5, 5])
    edges = torch.cat([-outer.flip(0), torch.zeros(1), outer])
    counts = torch.bincount(torch.bucketize(x.flatten(), edges), minlength=len(edges) + 1)
    below = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], edges[:8].numpy()])))
    mass = np.concatenate([below, below[::-1]])
    return float(stats.chisquare(counts.numpy(), mass / mass.sum() * x.numel()).pvalue)


def pairs(x: Tensor, y: Tensor) -> float:
    """Judge whether two columns of normals are independent: their squares and angle too."""
    x, y = x.double(), y.double()
    squares = [(v.square() - 1) / 2**0.5 for v in (x, y)]
    products = [x * y, squares[0] * squares[1], x * squares[1], y * squares[0]]
    radius, angle = (x.square() + y.square()).numpy(), torch.atan2(y, x).numpy()
    rings = np.histogram2d(np.exp(-radius / 2), angle, bins=8, range=[[0, 1], [-np.pi, np.pi]])[0]
    return min(
        worst(torch.stack([p.mean() * math.sqrt(len(p)) for p in products])),
        stats.kstest((x + y).numpy() / 2**0.5, "norm").pvalue,
        stats.kstest(radius, stats.chi2(2).cdf).pvalue,
        stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue,
        float(stats.chisquare(rings.ravel()).pvalue),
    )


def test_gaussian_tails():
    """Of 8 million, 507 lie beyond four standard deviations."""
    x = _normals(16_000, 500)
    assert tails(x) > RIGHT
    assert tails(1.005 * x) < WRONG
    assert tails(x.clamp(-4, 4)) < WRONG


def test_gaussian_pairs_of_one_radius_are_independent():
    """Columns j and j + 32 of 64 come from one radius and one angle."""
    x = _normals(3_000, 64)
    one, two = x[:, :32].flatten(), x[:, 32:].flatten()
    assert pairs(one, two) > RIGHT
    assert pairs(x[:, ::2].flatten(), x[:, 1::2].flatten()) > RIGHT
    assert correlation(x) > RIGHT and correlation(x.square()) > RIGHT
    assert pairs(one, two.abs() * one.sign()) < WRONG
    assert pairs(one, 0.03 * one + two) < WRONG


# The plain path as the reference, at odd shapes.


@pytest.mark.parametrize(
    ("rows", "n"), [(1, 33), (2, 1), (2, 32), (7, 3), (7, 129), (1000, 31), (50, 500)]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_agreement_with_the_plain_path(name, rows, n):
    generator = Generator().manual_seed(rows + n)
    field, bias = (torch.rand(n, generator=generator) * 2 - 1 for _ in range(2))
    fields = field.repeat(rows, 1)

    def draw(module, shift=0.0):
        calls = range(max(500 // rows, 1) if rows > 1 else 150)
        draws = [FAMILIES[name](module, fields + shift, bias, generator) for _ in calls]
        return one_a_unit(name, torch.cat(draws))

    reference = draw(plain)
    assert agreement(draw(kernels), reference) > RIGHT
    if n > 100 and name != "softmax":  # to which a shift is nothing
        assert agreement(draw(kernels, shift=0.3), reference) < WRONG
