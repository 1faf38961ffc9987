"""Splits and orders: disjoint, complete, pinned for ever, and blind to everything but seed and n."""

import tomllib

import numpy as np
import pytest
import tomli_w
from numpy.testing import assert_array_equal

import gibbsian.data as gd
from gibbsian.data.splits import part_size, permutation, split_rows
from gibbsian.errors import DataError


def rows_of(split: gd.Split) -> set[int]:
    return set(split.index.tolist())


def test_permutation_is_a_permutation_and_is_pinned():
    assert sorted(permutation(1000, 3, 1)) == list(range(1000))
    # These numbers may never change: a stored run's split would move under it.
    assert permutation(10, 0).tolist() == [9, 6, 7, 0, 5, 2, 8, 1, 3, 4]
    assert permutation(8, -5, 2**70, 1).tolist() == [5, 7, 2, 0, 4, 6, 1, 3]


def test_permutations_of_different_keys_are_unrelated():
    n = 4000
    first = permutation(n, 0, 1)
    for key in ((1, 1), (0, 2), (0,), (1, 0), (0, 1, 0)):
        other = permutation(n, *key)
        # Fixed points are Poisson(1); the rank correlation has the standard error 1/sqrt(n).
        assert (first == other).sum() < 10
        assert abs(np.corrcoef(first, other)[0, 1]) < 4 / np.sqrt(n)
    assert np.corrcoef(first, permutation(n, 0, 1))[0, 1] > 0.999  # the twin that is related


@pytest.mark.parametrize("validation, test", [(0.1, 0.1), (0, 0.25), (7, 3), (0, 0), (0.05, 10)])
def test_parts_are_disjoint_and_complete(validation, test):
    parts = split_rows(101, 5, validation, test)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(101))
    assert len(parts["validation"]) == part_size(validation, 101, "validation")
    assert len(parts["test"]) == part_size(test, 101, "test")


def test_resizing_validation_never_moves_a_test_row():
    small, large = split_rows(500, 1, 0.05, 0.2), split_rows(500, 1, 0.3, 0.2)
    assert_array_equal(small["test"], large["test"])


def test_seed_that_changes_nothing():
    x = np.arange(200.0).reshape(100, 2)
    one, two = gd.load(x, seed=1), gd.load(x, seed=2)
    assert rows_of(one.train) != rows_of(two.train)
    orders = [
        [b.index.tolist() for b in one.batches(10, epoch=e, seed=s)]
        for s, e in ((0, 0), (1, 0), (0, 1))
    ]
    assert orders[0] != orders[1] and orders[0] != orders[2] and orders[1] != orders[2]


def test_split_depends_on_seed_and_length_only():
    rng = np.random.default_rng(0)
    first = gd.load(rng.normal(size=(300, 3)), seed=4)
    second = gd.load(rng.integers(0, 2, (300, 50)).astype(bool), seed=4, transform="spin")
    assert_array_equal(first.train.index, second.train.index)
    assert_array_equal(first.test.index, second.test.index)


def test_a_resume_whose_split_leaks_test_rows_into_training(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(300, 4)))
    data = gd.load(path, seed=11, limit=150, validation=20)
    stored = tomllib.loads(tomli_w.dumps(data.spec))
    for again in (gd.load(**stored), gd.load(**(stored | {"limit": 10_000}))):
        assert not rows_of(again.train) & (rows_of(data.test) | rows_of(data.validation))
        assert_array_equal(again.test.index, data.test.index)
        assert_array_equal(again.validation.index, data.validation.index)
    assert_array_equal(gd.load(**stored).train.index, data.train.index)
    # The twin: a rebuild that forgets the seed does leak.
    leaky = gd.load(**(stored | {"seed": 0}))
    assert rows_of(leaky.train) & rows_of(data.test)


def test_classes_are_kept_after_the_split_so_that_no_row_changes_sides():
    x, y = np.arange(400.0).reshape(200, 2), np.arange(200) % 4
    every = gd.load(x, labels=y, seed=3)
    one = gd.load(x, labels=y, seed=3, classes=[2])
    assert set(one.train.labels) == set(one.test.labels) == {2}
    assert rows_of(one.train) <= rows_of(every.train)
    assert rows_of(one.test) <= rows_of(every.test)


def test_limit_is_a_random_part_of_train_and_leaves_the_rest_alone():
    x = np.arange(2000.0).reshape(1000, 2)
    every, few = gd.load(x, seed=0), gd.load(x, seed=0, limit=50)
    assert len(few.train) == 50
    assert_array_equal(few.train.index, every.train.index[:50])
    assert_array_equal(few.test.index, every.test.index)
    assert np.ptp(few.train.index) > 500  # not the head of the file
    assert len(gd.load(x, limit=10**6).train) == 800


@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, float("nan"), -3, 100, True])
def test_bad_fraction(bad):
    with pytest.raises(DataError, match=r"validation = .*(share|none for training)"):
        gd.load(np.zeros((100, 2)), validation=bad)


def test_shares_that_take_every_row():
    with pytest.raises(DataError, match="together take all 100 rows"):
        gd.load(np.zeros((100, 2)), validation=50, test=50)


@pytest.mark.parametrize("bad", [0, -1, True])
def test_bad_limit(bad):
    with pytest.raises(DataError, match=r"limit = .* is not a number of rows"):
        gd.load(np.zeros((100, 2)), limit=bad)
