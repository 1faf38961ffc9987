"""Equivalence intervals: they hold the truth as often as they say, and scarce chains never help."""

import json
import math

import pytest
import torch
from scipy.stats import t as student

from gibbsian.errors import GibbsianError
from gibbsian.evaluators import equivalence, observables


def groups(chains, q, shift=0.0, repeats=1, seed=0):
    """Draw chain means with standard deviation 0.2 beside a unit of 1, some of them shifted."""
    g = torch.Generator().manual_seed(seed)
    a = 0.2 * torch.randn(repeats, chains, q, generator=g, dtype=torch.float64) + shift
    return a, 0.2 * torch.randn(repeats, chains, q, generator=g, dtype=torch.float64)


def shares(chains, q, shift, repeats=100):
    a, b = groups(chains, q, shift, repeats)
    one = torch.ones(q)
    found = [equivalence(x, y, one).verdict for x, y in zip(a, b, strict=True)]
    return {k: found.count(k) / repeats for k in ("equivalent", "different", "undecided")}


def test_interval_is_welchs_with_bonferronis_level():
    a, b = torch.randn(30, 4, dtype=torch.float64), torch.randn(12, 4, dtype=torch.float64) + 0.3
    found = equivalence(a, b, torch.full((4,), 2.0), margin=0.5)
    x, y = a[:, 1] / 2, b[:, 1] / 2
    parts = [float(x.var()) / 30 + 1 / 900, float(y.var()) / 12 + 1 / 144]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 29 + parts[1] ** 2 / 11)
    half = student.ppf(1 - 0.05 / 8, freedom) * math.sqrt(sum(parts))
    assert found.difference[1] == pytest.approx(float(x.mean() - y.mean()))
    assert found.high[1] - found.low[1] == pytest.approx(2 * half)


def test_intervals_hold_the_truth_all_at_once():
    """95 % of the time for all 10 observables; without the correction far less often."""
    a, b = groups(300, 10, 0.07, 200)
    out, bare = 0, 0
    for x, y in zip(a, b, strict=True):
        found = equivalence(x, y, torch.ones(10))
        ends = list(zip(found.low, found.high, strict=True))
        out += any(not low < 0.07 < high for low, high in ends)
        half = 1.96 / student.ppf(1 - 0.05 / 20, 598)
        bare += any(abs((low + high) / 2 - 0.07) > half * (high - low) / 2 for low, high in ends)
    assert out / 200 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert bare / 200 > 0.2  # the wrong twin


def test_equal_groups_are_certified_by_more_chains_and_never_by_fewer():
    found = [shares(n, 6, 0.0)["equivalent"] for n in (2, 10, 40, 100, 400)]
    assert found == sorted(found)
    assert found[0] == found[1] == found[2] == 0 and found[-1] > 0.99


@pytest.mark.parametrize("chains", [2, 5, 20, 100, 500])
def test_a_difference_is_never_certified(chains):
    """0.15 standard deviations in one observable of six."""
    shift = torch.tensor([0.15, 0, 0, 0, 0, 0])
    found = shares(chains, 6, shift)
    assert found["equivalent"] == 0
    if chains == 500:
        assert found["different"] > 0.95


def test_equal_groups_are_seldom_called_different():
    for chains in (3, 30, 300):
        assert shares(chains, 6, 0.0)["different"] <= 0.0027 + 3 * math.sqrt(0.0027 / 100)


@pytest.mark.parametrize("chains", [2, 5, 20, 60, 200, 1_000])
def test_chains_stuck_together_are_not_certified(chains):
    """A rare mode, which holds a twelfth of one group and none of the other; few chains miss it."""
    g = torch.Generator().manual_seed(chains)
    verdicts = []
    for _ in range(100):
        a = torch.zeros(chains, 1)
        b = (torch.rand(chains, 1, generator=g) < 1 / 12).float()
        verdicts.append(equivalence(a, b).verdict)
    assert verdicts.count("equivalent") <= 0.05 * 100  # a wrong answer in 20 is what 95 % means


def test_too_few_effective_draws_certify_nothing():
    a, b = (x[0] for x in groups(500, 3))
    one = torch.ones(3)
    assert equivalence(a, b, one, ess=400).verdict == "equivalent"
    assert equivalence(a, b, one, ess=399).verdict == "undecided"
    assert equivalence(a + 1, b, one, ess=399).verdict == "different"


def test_constant_columns_have_a_unit():
    zeros, ones = torch.zeros(300, 1), torch.ones(300, 1)
    assert equivalence(zeros, zeros).verdict == "equivalent"
    assert equivalence(zeros[:20], zeros[:20]).verdict == "undecided"
    assert equivalence(zeros, ones).verdict == "different"
    few = zeros.clone()
    few[:30] = 1
    found = equivalence(few, zeros)
    assert all(math.isfinite(x) for x in (*found.difference, *found.low, *found.high))
    assert found.verdict == "different"


def test_what_is_not_finite_is_undecided():
    a, b = (x[0] for x in groups(500, 2))
    a[0, 1] = torch.nan
    found = equivalence(a, b, torch.ones(2))
    assert found.verdicts == ("equivalent", "undecided")
    json.dumps(found.as_dict(), allow_nan=False)


def test_wrong_groups_are_refused():
    with pytest.raises(GibbsianError, match="at least 2 chains"):
        equivalence(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(GibbsianError, match="same observables"):
        equivalence(torch.zeros(4, 3), torch.zeros(5, 2))


# What is compared.


def rows_in_three_dimensions(n=2_000):
    g = torch.Generator().manual_seed(1)
    z = torch.randn(n, 3, generator=g) * torch.tensor([3.0, 2.0, 1.0])
    x = torch.zeros(n, 6)
    x[:, 0], x[:, 1], x[:, 2] = z[:, 0], z[:, 0] + 0.1 * z[:, 1], z[:, 1]
    x[:, 4], x[:, 5] = z[:, 2], -z[:, 2]
    return x + 7


def test_observables_are_few_and_leave_constants_out():
    choice = observables(rows_in_three_dimensions())
    assert choice.directions.shape == (6, 3)  # column 3 is constant, and two more are dependent
    pairs = {tuple(p) for p in choice.pairs.T.tolist()}
    assert {(0, 1), (4, 5)} <= pairs and not any(3 in p for p in pairs)
    x = rows_in_three_dimensions()[:50]
    y = x - choice.centre
    i, j = choice.pairs[:, 0]
    torch.testing.assert_close(choice(x)[:, 3], y[:, i] * y[:, j])
    torch.testing.assert_close(choice(x)[:, :3], y @ choice.directions)
    assert choice(x.reshape(5, 10, 6)).shape == (5, 10, len(choice.names))


def test_rare_bits_are_no_observables():
    """Two bits that are on together in 10 rows of 2,000 correlate perfectly; no sample tells how often."""
    x = (torch.rand(2_000, 8, generator=torch.Generator().manual_seed(3)) < 0.3).float()
    x[:, 3] = torch.where(
        torch.rand(2_000, generator=torch.Generator().manual_seed(4)) < 0.8, x[:, 2], x[:, 3]
    )
    x[:, :2] = 0
    x[::200, :2] = 1
    pairs = observables(x).pairs.T.tolist()
    assert pairs[0] == [2, 3] and not any(k in p for p in pairs for k in (0, 1))
    only = observables(x[:, :2]).pairs.T.tolist()
    assert only == [[0, 1]]  # nothing else is there


def test_observables_of_one_or_of_constant_columns():
    one = observables(torch.randn(20, 1, generator=torch.Generator().manual_seed(0)))
    assert one(torch.zeros(3, 1)).shape == (3, 2)
    flat = observables(torch.ones(20, 3))
    assert torch.isfinite(flat(torch.zeros(3, 3))).all()
    with pytest.raises(GibbsianError, match="at least 2 training rows"):
        observables(torch.zeros(1, 3))


@pytest.mark.parametrize("rows", [60, 300])
def test_the_size_that_is_called_for_decides_it(rows):
    """With as many rows as it says agreement is mostly shown; with half as many mostly not."""
    g = torch.Generator().manual_seed(rows)

    def draw(n):
        return torch.randn(n, 6, generator=g, dtype=torch.float64)

    chains = 0.02 * draw(200)
    first = equivalence(chains, draw(rows), torch.ones(6))
    assert first.verdict == "undecided" and first.sizes == (200, rows)
    assert first.needed[0] == 200 and 1_500 < first.needed[1] < 4_000

    def share(n):
        found = [equivalence(chains, draw(n), torch.ones(6)).verdict for _ in range(40)]
        return found.count("equivalent") / 40

    # Nine in ten are meant; three standard errors of 40 trials are 0.14.
    assert share(first.needed[1]) > 0.75 > 0.3 > share(first.needed[1] // 2)


def test_both_groups_grow_where_both_are_scarce():
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(50, 3, generator=g, dtype=torch.float64) for _ in range(2))
    found = equivalence(a, b, torch.ones(3))
    assert min(found.needed) > 2_000 and found.as_dict()["needed"] == list(found.needed)
    enough = equivalence(0.01 * a, 0.01 * b, torch.ones(3), margin=0.5)
    assert enough.needed == enough.sizes == (50, 50)
