"""Samples beside rows: what must come out for equal distributions, copies, and sets far apart."""

import math

import numpy as np
import pytest
import torch

from gibbsian.errors import GibbsianError
from gibbsian.evaluators.quality import (
    adversarial_accuracy,
    covariance_error,
    coverage,
    privacy,
)


def normal(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def patterns(n, seed):
    """Rows of seven patterns of four bits: nearly all distances tie."""
    g = torch.Generator().manual_seed(seed)
    code = torch.randint(7, (n,), generator=g)
    return ((code[:, None] >> torch.arange(4)) & 1).float()


@pytest.mark.parametrize("make", [normal, patterns])
def test_equal_distributions_come_to_one_half_within_standard_errors(make):
    if make is normal:
        found = [adversarial_accuracy(normal(200, seed=2 * i), normal(200, seed=2 * i + 1))
                 for i in range(40)]  # fmt: skip
    else:
        found = [adversarial_accuracy(patterns(200, 2 * i), patterns(200, 2 * i + 1))
                 for i in range(40)]  # fmt: skip
    values = np.array([f.value for f in found])
    said = float(np.mean([f.standard_error for f in found]))
    assert abs(values.mean() - 0.5) < 4 * max(values.std(ddof=1), 1e-3) / math.sqrt(40) + 1 / 200
    assert values.std(ddof=1) < 1.3 * said
    if make is normal:
        assert values.std(ddof=1) > 0.6 * said


def test_accuracy_against_a_plain_loop():
    a, b = normal(30, 2), normal(30, 2, seed=1) + 0.5
    found = adversarial_accuracy(a, b)

    def share(x, y):
        own = torch.cdist(x, x).fill_diagonal_(torch.inf).min(dim=1).values
        return float((torch.cdist(x, y).min(dim=1).values > own).double().mean())

    assert found.true == pytest.approx(share(a, b)) and found.synthetic == pytest.approx(
        share(b, a)
    )
    assert found.value == pytest.approx((found.true + found.synthetic) / 2)
    assert found.error == pytest.approx((found.true - 0.5) ** 2 + (found.synthetic - 0.5) ** 2)


def test_sets_far_apart_are_told_apart():
    assert adversarial_accuracy(normal(100), normal(100, seed=1) + 30).value == 1.0


def test_copies_lose_privacy_and_samples_do_not():
    train, test = normal(300, 10), normal(300, 10, seed=1)
    copied = privacy(train, test, train + 1e-4 * normal(300, 10, seed=2))
    assert copied.train.value < 0.02
    assert copied.test.value == pytest.approx(0.5, abs=4 * copied.test.standard_error)
    assert copied.loss - 3 * copied.standard_error > 0.15
    fair = privacy(train, test, normal(300, 10, seed=3))
    assert abs(fair.loss) < 4 * fair.standard_error
    assert copied.copied == 1 and abs(fair.copied) < 4 * fair.copied_error


def test_copies_of_a_few_of_many_rows_are_found():
    """Fewer samples than rows, and fewer held-out rows than training rows."""
    train, test = normal(3000, 10), normal(500, 10, seed=1)
    found = privacy(train, test, train[:300])
    assert found.copied - 3 * found.copied_error > 0.9
    fair = privacy(train, test, normal(300, 10, seed=3))
    assert abs(fair.copied) < 4 * fair.copied_error


def test_the_error_of_copies_counts_rows_that_many_samples_are_near():
    """Few held-out rows in many columns: some are the nearest of many samples, which no coin knows of."""
    n, k, m = 600, 80, 400
    found = [
        privacy(normal(n, 64, seed=3 * i), normal(k, 64, seed=3 * i + 1), normal(m, 64, seed=3 * i + 2))
        for i in range(40)
    ]  # fmt: skip
    chance = n / (n + k)
    coin = (chance * (1 - chance) / m) ** 0.5 / (1 - chance)
    scores = torch.tensor([f.copied / f.copied_error for f in found])
    assert abs(float(scores.mean())) < 4 / 40**0.5
    assert 0.6 < float(scores.std()) < 1.4
    assert float(torch.tensor([f.copied / coin for f in found]).std()) > 1.5


def test_balls_around_equal_and_unequal_sets():
    """Expected values of equal distributions: coverage 1 − 2^-k, density 1 (Naeem et al. 2020)."""
    same = coverage(normal(1000, 5), normal(1000, 5, seed=1), k=5)
    assert same.coverage == pytest.approx(1 - 0.5**5, abs=0.02)
    assert same.density == pytest.approx(1, abs=0.1)
    assert same.precision > 0.9 and same.recall > 0.9
    apart = coverage(normal(100), normal(100, seed=1) + 30)
    assert set(apart.as_dict().values()) == {0.0}
    two = normal(400, seed=2)
    two[::2] += 20
    half = coverage(two, normal(400, seed=3))
    assert half.precision > 0.8 and half.coverage < 0.6 and half.recall < 0.6


def test_coverage_against_plain_loops():
    a, b = normal(25, 2), normal(25, 2, seed=1)
    across = torch.cdist(a.double(), b.double())
    radius = [torch.cdist(x.double(), x.double()).sort(dim=1).values[:, 3] for x in (a, b)]
    found = coverage(a, b, k=3)
    inside = across <= radius[0][:, None]
    assert found.precision == pytest.approx(float(inside.any(dim=0).double().mean()))
    assert found.coverage == pytest.approx(float(inside.any(dim=1).double().mean()))
    assert found.density == pytest.approx(float(inside.double().sum(dim=0).mean()) / 3)
    within = across <= radius[1][None, :]
    assert found.recall == pytest.approx(float(within.any(dim=1).double().mean()))


def test_covariance_error():
    x = normal(400, 3)
    y = x.clone()
    y[:, 1] = y[:, 0]
    a, b = np.cov(x.numpy().T.astype(float)), np.cov(y.numpy().T.astype(float))
    i, j = np.triu_indices(3, 1)
    assert covariance_error(x, y) == pytest.approx(((a - b)[i, j] ** 2).mean())
    assert covariance_error(x, x) == 0
    # Two sets of n independent unit normals: each covariance has variance 1/n.
    found = np.mean([covariance_error(normal(200, 5, 2 * s), normal(200, 5, 2 * s + 1))
                     for s in range(30)])  # fmt: skip
    assert found == pytest.approx(2 / 200, rel=0.25)
    assert covariance_error(normal(50, 1), 2 * normal(50, 1)) > 1


def test_too_few_rows_are_refused():
    with pytest.raises(GibbsianError, match="at least 4"):
        adversarial_accuracy(normal(3), normal(10))
    with pytest.raises(GibbsianError, match="more rows than 5"):
        coverage(normal(5), normal(10))
