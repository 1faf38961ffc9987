"""Batches, splits as tensors, specs and fingerprints."""

import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from numpy.testing import assert_array_equal

import gibbsian.data as gd
from gibbsian.errors import DataError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> gd.Dataset:
    return gd.load("digits")


def same(one: gd.Batch, two: gd.Batch) -> bool:
    return torch.equal(one.x, two.x) and torch.equal(one.index, two.index)


def test_an_epoch_visits_every_row_once_but_for_the_dropped_tail(digits):
    batches = list(digits.batches(100, epoch=0, seed=0, generator=seeded()))
    assert len(batches) == digits.batches_per_epoch(100) == 14
    seen = torch.cat([b.index for b in batches])
    assert all(b.x.shape == (100, 64) and b.x.dtype == torch.float32 for b in batches)
    assert len(seen.unique()) == len(seen) == 1400
    for b in batches[:2]:
        assert_array_equal(b.labels.numpy(), digits.train.labels[b.index.numpy()])
        assert b.weights is None


def test_a_part_smaller_than_a_batch_is_one_batch():
    data = gd.load(np.zeros((10, 2)), validation=0, test=0, transform="identity")
    (batch,) = data.batches(100, epoch=0, seed=0)
    assert batch.x.shape == (10, 2) and data.batches_per_epoch(100) == 1


def test_resume_in_the_middle_of_an_epoch_is_bit_for_bit(digits):
    generator = seeded()
    whole = []
    for number, batch in enumerate(digits.batches(64, epoch=3, seed=5, generator=generator)):
        whole.append(batch)
        if number == 6:
            state = generator.get_state()
    later = torch.Generator()
    later.set_state(state)
    rest = list(digits.batches(64, epoch=3, seed=5, generator=later, start=7))
    assert len(rest) == len(whole) - 7
    assert all(same(a, b) for a, b in zip(whole[7:], rest, strict=True))
    # The twin: without the generator's state the bits differ.
    fresh = list(digits.batches(64, epoch=3, seed=5, generator=seeded(), start=7))
    assert not all(same(a, b) for a, b in zip(whole[7:], fresh, strict=True))


def test_order_is_a_function_of_seed_and_epoch_and_not_of_the_generator(digits):
    one = [b.index for b in digits.batches(50, epoch=1, seed=0, generator=seeded(1))]
    two = [b.index for b in digits.batches(50, epoch=1, seed=0, generator=seeded(2))]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_batches_of_other_parts_and_bad_requests(digits):
    test = next(digits.batches(20, epoch=0, seed=0, generator=seeded(), split="test"))
    assert_array_equal(test.labels.numpy(), digits.test.labels[test.index.numpy()])
    with pytest.raises(DataError, match="a batch of 0 rows is impossible"):
        digits.batches(0, epoch=0, seed=0)
    with pytest.raises(DataError, match="has no test part"):
        gd.load(np.zeros((10, 2)), test=0).batches(2, epoch=0, seed=0, split="test")


def test_source_rows_keep_their_compact_dtype():
    x = np.random.default_rng(0).integers(0, 256, (50, 6), dtype=np.uint8)
    data = gd.load(x)
    raw = data.train.raw([0, 3])
    assert raw.dtype == torch.uint8
    assert_array_equal(raw.numpy(), x[data.train.index[[0, 3]]])


def test_tensor_is_the_same_for_the_same_seed(digits):
    part = digits.validation
    assert torch.equal(part.tensor(), part.tensor(generator=0))
    assert torch.equal(part.tensor(30), part.tensor()[:30])
    assert torch.equal(part.tensor(generator=seeded(4)), part.tensor(generator=4))
    assert not torch.equal(part.tensor(), part.tensor(generator=1))
    assert part.tensor().shape == (len(part), part.n_features) == (180, 64)
    chunked = torch.cat(list(part.chunks(rows=64, limit=150)))
    assert chunked.shape == (150, 64)


def test_weights_follow_their_rows():
    x, w = np.arange(60.0).reshape(30, 2), np.arange(30) / 10
    data = gd.load(x, weights=w, transform="identity")
    batch = next(data.batches(8, epoch=0, seed=0))
    assert_array_equal(batch.weights.numpy(), (batch.x[:, 0] / 20).numpy())
    assert_array_equal(data.test.weights, w[data.test.index])


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_weights(bad):
    with pytest.raises(DataError, match="must be finite numbers of at least 0"):
        gd.load(np.zeros((3, 2)), weights=[1.0, bad, 2.0])


def test_weights_all_zero_or_of_another_length():
    with pytest.raises(DataError, match="are all 0"):
        gd.load(np.zeros((3, 2)), weights=[0, 0, 0])
    with pytest.raises(DataError, match="there are 2 weights for the 3 rows"):
        gd.load(np.zeros((3, 2)), weights=[1, 2])


def test_a_data_set_is_returned_as_it_is(digits):
    assert gd.load(digits) is digits
    assert "train 1437" in repr(digits)


@pytest.mark.parametrize(
    "request_",
    [
        {"source": "digits", "classes": [3, 4], "limit": 100, "seed": 9},
        {"source": "bars-and-stripes:n=3,rows=300", "validation": 0.2, "test": 0},
        {"source": "ising2d:L=4,T=3.0,rows=200,sweeps=5", "transform": "identity"},
        {"source": "digits", "transform": ["standardise-global", "dequantise:0.1"]},
    ],
)
def test_spec_rebuilds_the_identical_data_set(request_):
    data = gd.load(**request_)
    again = gd.load(**tomllib.loads(tomli_w.dumps(data.spec)))
    assert again.spec == data.spec and again.fingerprint == data.fingerprint
    assert again.transform.state() == data.transform.state()
    for one, two in zip(data._parts().values(), again._parts().values(), strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            assert_array_equal(one.index, two.index)
            assert torch.equal(one.tensor(), two.tensor())


def test_arrays_leave_a_fingerprint_and_must_be_passed_again():
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    data = gd.load(x, labels=y)
    assert data.spec["source"] == data.spec["labels"] == "array"
    with pytest.raises(DataError, match="the rows of this data set were passed in memory"):
        gd.load(**data.spec)
    again = gd.load(**(data.spec | {"source": x.copy(), "labels": y.tolist()}))
    assert again.fingerprint == data.fingerprint
    assert torch.equal(again.train.tensor(), data.train.tensor())
    x[7, 1] += 1e-9
    with pytest.raises(DataError, match="is not what it was when its fingerprint was stored"):
        gd.load(**(data.spec | {"source": x, "labels": y}))


def test_changed_labels_change_the_fingerprint(tmp_path):
    x = np.zeros((6, 2))
    prints = {gd.load(x, labels=y).fingerprint for y in ([0] * 6, [0] * 5 + [1], list("aaaaab"))}
    prints |= {gd.load(x).fingerprint, gd.load(x, weights=[1] * 6).fingerprint}
    assert len(prints) == 5


def test_text_labels_become_numbers_with_names():
    y = np.array(["cat", "dog", "ant", "dog"] * 10)
    data = gd.load(np.zeros((40, 2)), labels=y, classes=["dog", "ant"])
    assert data.label_names == ("ant", "cat", "dog")
    assert data.train.labels.dtype == np.int64 and set(data.train.labels) == {0, 2}


def test_labels_of_another_length():
    with pytest.raises(DataError, match="there are 9 labels for the 10 rows of the array"):
        gd.load(np.zeros((10, 2)), labels=np.zeros(9))


def test_labels_that_are_measurements():
    with pytest.raises(DataError, match="neither whole numbers nor text"):
        gd.load(np.zeros((2, 2)), labels=[0.5, 1.0])
    with pytest.raises(DataError, match=r"labels of the array have shape \(2, 2\)"):
        gd.load(np.zeros((2, 2)), labels=np.zeros((2, 2)))


def test_class_not_present():
    x, y = np.zeros((4, 2)), [0, 1, 0, 1]
    with pytest.raises(DataError, match="has the class 7: its classes are 0, 1"):
        gd.load(x, labels=y, classes=[7])
    with pytest.raises(DataError, match="there is no class 'four'"):
        gd.load(x, labels=y, classes="four")
    with pytest.raises(DataError, match="classes need labels"):
        gd.load(x, classes=[1])
    assert set(gd.load(x, labels=y, classes="1", validation=0, test=0).train.labels) == {1}


def test_nan_and_infinite_values_are_counted_and_placed():
    x = np.zeros((30, 4))
    x[12, 3], x[20, 0], x[25, 1] = np.nan, np.inf, np.nan
    with pytest.raises(DataError, match=r"3 NaN or infinite values.* row 12, column 3 \(counted"):
        gd.load(x)


@pytest.mark.parametrize(
    "bad, said",
    [
        (np.zeros((0, 4)), "is empty"),
        (np.zeros((4, 0)), "is empty"),
        (np.zeros(5), "has 1 dimension and needs at least two"),
        (np.float64(3), "has 0 dimensions"),
        (np.array([[1, "a"], [None, 2]], dtype=object), "holds Python objects"),
        (np.array([["a", "b"]]), "holds text"),
        (np.zeros((3, 2), complex), "holds complex numbers"),
        (np.zeros((3, 2), "datetime64[D]"), "holds values of dtype datetime64"),
        ([[1, 2], [3]], "rows are of different lengths"),
    ],
)
def test_arrays_that_cannot_be_rows(bad, said):
    with pytest.raises(DataError, match=said):
        gd.load(bad)


def test_keys_need_a_file():
    with pytest.raises(DataError, match="an array has no key 'x'"):
        gd.load(np.zeros((3, 2)), key="x")


def test_image_shape_and_pictures(digits):
    assert digits.image_shape == (8, 8)
    pictures = digits.to_images(digits.test.tensor(5))
    assert pictures.shape == (5, 8, 8) and pictures.min() >= 0 and pictures.max() <= 1
    x = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)
    data = gd.load(x, transform="standardise-global", validation=0, test=0)
    assert data.image_shape == (3, 4, 5) and data.n_features == 60
    want = x[data.train.index].transpose(0, 2, 3, 1) / 255
    np.testing.assert_allclose(data.to_images(data.train.tensor()), want, atol=1e-5)
    flat = gd.load(x.reshape(20, 60), image_shape=(6, 10))
    assert flat.to_images(flat.train.tensor()).shape[1:] == (6, 10)
    with pytest.raises(DataError, match=r"image_shape \(7, 7\) does not make 60 columns"):
        gd.load(x, image_shape=(7, 7))
    with pytest.raises(DataError, match="have no image shape"):
        plain = gd.load(x.reshape(20, 60))
        plain.to_images(plain.train.tensor())


def test_grey_floats_on_another_scale_are_pictured_over_their_range():
    x = np.random.default_rng(0).normal(5, 2, (30, 4, 4)).astype(np.float32)
    data = gd.load(x, validation=0, test=0)
    pictures = data.to_images(data.train.tensor())
    np.testing.assert_allclose([pictures.min(), pictures.max()], [0, 1], atol=1e-5)
