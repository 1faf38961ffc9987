"""Transforms: exact values, fitted on train rows only, stored and restored as plain numbers."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import gibbsian as gb
import gibbsian.data as gd
from gibbsian.data import steps
from gibbsian.data.columns import Columns
from gibbsian.errors import DataError, GibbsianWarning


def fitted(names, x: torch.Tensor, kind: str = "real") -> gd.Transform:
    return gd.Transform.parse(names).fit(lambda: iter([x]), Columns(((kind, x.shape[1]),)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Stochastic binarisation


def bit_rates(monkeypatch, shift: int = 0) -> torch.Tensor:
    """P(bit = 1) of the 256 grey levels, by running through all 2^16 values of the random word."""
    grey = torch.arange(256, dtype=torch.uint8).view(1, 256)
    t = fitted("stochastic-binarise", grey)
    words = torch.arange(-(2**15), 2**15).to(torch.int16)
    monkeypatch.setattr(
        steps,
        "uniform_words",
        lambda shape, device, generator: words[:, None].expand(shape).clone(),
    )
    shifted = (grey.int() + shift).clamp(0, 255).to(torch.uint8)
    return t(shifted.expand(2**16, 256).contiguous(), seeded()).double().mean(0)


def test_bits_of_bytes_are_exact_within_two_to_the_minus_sixteen(monkeypatch):
    want = torch.arange(256, dtype=torch.float64) / 255
    rate = bit_rates(monkeypatch)
    assert (rate - want).abs().max() <= 2**-16
    assert rate[0] == 0 and rate[255] == 1
    assert (bit_rates(monkeypatch, shift=1) - want).abs().max() > 2**-16  # the twin


def test_words_are_uniform_and_cover_all_sixteen_bits():
    u = steps.uniform_words(torch.Size((1000, 999)), torch.device("cpu"), seeded()).int() + 2**15
    n = u.numel()
    assert u.min() < 2**8 and u.max() > 2**16 - 2**8
    for bit in range(16):
        assert abs(((u >> bit) & 1).double().mean() - 0.5) < 4.5 * 0.5 / n**0.5
    # The four words of one draw are unrelated, as are a word and the next.
    flat = u.flatten().double()
    for lag in (1, 2, 3, 4, 999):
        r = torch.corrcoef(torch.stack([flat[:-lag], flat[lag:]]))[0, 1]
        assert abs(r) < 4.5 / n**0.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
def test_bits_are_redrawn_at_each_visit_with_the_grey_level_as_probability(dtype):
    grey = torch.tensor([[0, 51, 102, 204, 255]], dtype=torch.uint8).expand(40_000, 5)
    p = grey[0].double() / 255
    x = grey.contiguous() if dtype == torch.uint8 else (grey / 255).to(dtype)
    t = fitted("stochastic-binarise", x)
    assert t.random
    generator = seeded()
    first, second = t(x, generator), t(x, generator)
    assert first.dtype == torch.float32 and set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    error = (p * (1 - p) / 80_000).sqrt()
    rate = torch.cat([first, second]).double().mean(0)
    assert ((rate - p).abs() <= 4.5 * error + 1e-12).all()
    wrong = p.flip(0)  # the twin: other probabilities
    assert not ((rate - wrong).abs() <= 4.5 * error + 1e-12).all()
    assert torch.equal(t(x, seeded(7)), t(x, seeded(7)))


def test_random_transform_without_a_generator():
    t = fitted("stochastic-binarise", torch.zeros(3, 2, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"pass it a torch\.Generator"):
        t(torch.zeros(3, 2, dtype=torch.uint8))


def test_bytes_of_zero_and_one_are_bits_and_not_grey_levels():
    x = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)
    assert torch.equal(fitted("stochastic-binarise", x)(x, seeded()), x.float())
    assert torch.equal(fitted("threshold", x)(x), x.float())


def test_values_outside_the_unit_interval_are_told_about_scale():
    x = torch.tensor([[0.0, 3.0]])
    with pytest.raises(DataError, match=r"in \[0, 1\], and these go from 0 to 3.*'scale'"):
        fitted("stochastic-binarise", x)(x, seeded())


# The other steps


def test_threshold():
    x = torch.tensor([[0, 127, 128, 255]], dtype=torch.uint8)
    assert fitted("threshold", x)(x).tolist() == [[0, 0, 1, 1]]
    assert fitted("threshold:0.2", x)(x).tolist() == [[0, 1, 1, 1]]
    y = torch.tensor([[0.1, 0.5, 0.51]])
    t = fitted("threshold", y)
    assert t(y).tolist() == [[0, 0, 1]] and t.layout == [("binary", 3)]
    assert fitted("threshold", x).inverse(torch.tensor([[0.0, 0, 1, 1]])).tolist() == [
        [0, 0, 255, 255]
    ]


def test_scale_of_bytes_and_of_numbers():
    x = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    assert_close(fitted("scale", x)(x), torch.tensor([[0.0, 0.2, 1.0]]))
    y = torch.tensor([[-2.0, 0.0], [2.0, 8.0]], dtype=torch.float64)
    together, each = fitted("scale", y), fitted("scale-columns", y)
    assert_close(together(y), torch.tensor([[0.0, 0.2], [0.4, 1.0]]))
    assert_close(each(y), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert_close(together.inverse(together(y)).double(), y)
    assert_close(each.inverse(each(y)).double(), y)
    assert together(torch.tensor([[-9.0, 99.0]])).tolist() == [[0, 1]]  # beyond the train range


def test_standardise_matches_the_moments_even_far_from_zero():
    x = torch.randn(500, 3, generator=seeded(), dtype=torch.float64) * 0.1 + 1e6
    t = fitted("standardise", x)
    y = t(x)
    assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(y.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert_close(t.inverse(y.double()), x, atol=1e-6, rtol=0)
    pieces = gd.Transform.parse("standardise").fit(
        lambda: iter(x.split(77)), Columns((("real", 3),))
    )
    assert_close(pieces(x), y, atol=1e-6, rtol=0)


def test_standardise_global_keeps_the_relative_scale():
    x = torch.tensor([[0, 10], [0, 30]], dtype=torch.uint8)
    t = fitted("standardise-global", x)
    flat = x.double().flatten()
    want = (x.double() - flat.mean()) / flat.std(correction=0)
    assert_close(t(x), want.float())


def test_constant_columns_are_warned_of_and_become_zero():
    x = torch.tensor([[1.0, 5.0], [2.0, 5.0]])
    for name in ("standardise", "scale-columns"):
        with pytest.warns(GibbsianWarning, match=r"1 constant training column\(s\), 1 \(counted"):
            t = fitted(name, x)
        assert t(x)[:, 1].tolist() == [0, 0]
    with pytest.warns(GibbsianWarning, match="all training values are equal"):
        fitted("standardise-global", torch.full((3, 2), 4.0))


def test_dequantise_adds_noise_of_the_stated_size():
    x = torch.full((50_000, 2), 3.0)
    t = fitted("dequantise:0.25", x)
    assert t.random
    noise = t(x, seeded()) - 3
    n = noise.numel()
    assert abs(noise.mean()) < 4.5 * 0.25 / n**0.5
    error = 0.25 / (2 * n) ** 0.5
    assert abs(noise.std() - 0.25) < 4.5 * error
    assert abs(noise.std() - 0.25**2) > 4.5 * error  # the twin: a variance taken for a deviation
    assert not fitted("dequantise:0", x).random
    with pytest.raises(DataError, match="sigma0 of at least 0"):
        gd.Transform.parse("dequantise:-1")


def test_spin():
    x = torch.tensor([[0.0, 1.0]])
    t = fitted("spin", x, "binary")
    assert t(x).tolist() == [[-1, 1]] and t.layout == [("spin", 2)]
    assert t.inverse(t(x)).tolist() == x.tolist()
    with pytest.raises(DataError, match="not binary: put 'threshold'"):
        fitted("spin", torch.tensor([[0.3, 0.4]]))
    grey = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert fitted("threshold+spin", grey)(grey).tolist() == [[-1, 1]]


def test_one_hot_of_whole_numbers_and_its_inverse():
    x = torch.tensor([[3, -1], [7, -1], [3, 5]], dtype=torch.int64)
    t = fitted("one-hot", x)
    assert t.layout == [("onehot", 2), ("onehot", 2)]
    assert t(x).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
    assert torch.equal(t.inverse(t(x)), x.float())
    with pytest.raises(DataError, match=r"column 1 .* holds the category '4', which no training"):
        t(torch.tensor([[3, 4]]))
    with pytest.raises(DataError, match="needs whole numbers or text"):
        fitted("one-hot", torch.tensor([[0.5, 1.5]]))


def test_one_hot_of_chosen_columns_leaves_the_others():
    x = torch.tensor([[2.5, 1.0, 9.5], [3.5, 2.0, 8.5]])
    t = fitted("one-hot:1", x)
    assert t.layout == [("real", 1), ("onehot", 2), ("real", 1)]
    assert t(x).tolist() == [[2.5, 1, 0, 9.5], [3.5, 0, 1, 8.5]]
    both = fitted(["one-hot:1", "standardise"], x)
    assert both(x).tolist() == [[-1, 1, 0, 1], [1, 0, 1, -1]]
    assert torch.equal(both.inverse(both(x)), x)
    with pytest.raises(DataError, match="can't find the column 'size': the columns are 0, 1, 2"):
        fitted("one-hot:size", x)


# The pipeline


def test_unknown_transforms_suggest_the_nearest_and_take_american_spelling():
    with pytest.raises(DataError, match=r"unknown transform 'tresh.*did you mean 'threshold'"):
        gd.Transform.parse("treshold")
    with pytest.raises(DataError, match="takes no parameter"):
        gd.Transform.parse("scale:2")
    with pytest.raises(DataError, match="takes a number after the colon, not 'half'"):
        gd.Transform.parse("threshold:half")
    with pytest.raises(DataError, match="empty list"):
        gd.Transform.parse([])
    assert gd.Transform.parse("standardize+dequantize:0.5").names == [
        "standardise",
        "dequantise:0.5",
    ]


def test_transforms_fit_on_train_rows_only():
    x = np.random.default_rng(0).normal(size=(400, 3))
    clean = gd.load(x, transform="standardise", seed=2)
    spoilt = x.copy()
    spoilt[clean.test.index] *= 1000
    spoilt[clean.validation.index] += 50
    other = gd.load(spoilt, transform="standardise", seed=2)
    assert other.transform.state() == clean.transform.state()
    spoilt[clean.train.index[0]] += 1  # the twin: a train row does count
    assert gd.load(spoilt, transform="standardise", seed=2).transform.state() != (
        clean.transform.state()
    )


@pytest.mark.parametrize(
    "names, kind",
    [
        ("standardise", "real"),
        ("scale+stochastic-binarise+spin", "real"),
        ("scale-columns+threshold:0.3", "real"),
        ("standardise-global+dequantise:0.1", "real"),
        ("identity", "spin"),
        ("one-hot", "real"),
    ],
)
def test_state_round_trip_through_json(names, kind):
    x = torch.randint(-2, 5, (60, 4), generator=seeded()).double()
    t = fitted(names, x, kind)
    again = gd.Transform.from_state(json.loads(json.dumps(t.state())))
    assert torch.equal(t(x, seeded(1)), again(x, seeded(1)))
    assert again.layout == t.layout and again.names == t.names and again.random == t.random
    y = t(x, seeded(2))
    assert torch.equal(t.inverse(y), again.inverse(y))


def test_incomplete_state_and_unfitted_transform():
    state = fitted("standardise", torch.randn(9, 2, generator=seeded())).state()
    del state["steps"][0]["mean"]
    with pytest.raises(DataError, match="stored transform is incomplete"):
        gd.Transform.from_state(state)
    with pytest.raises(DataError, match="has not been fitted"):
        _ = gd.Transform.parse("scale").layout


@pytest.mark.parametrize(
    "values, names, layout",
    [
        (np.random.default_rng(0).integers(0, 2, (50, 3)).astype(bool), ["identity"], "binary"),
        (np.random.default_rng(0).integers(0, 2, (50, 3)), ["identity"], "binary"),
        (np.random.default_rng(0).integers(0, 2, (50, 3)) * 2 - 1, ["identity"], "spin"),
        (np.random.default_rng(0).integers(0, 256, (50, 3), dtype=np.uint8), None, "binary"),
        (np.random.default_rng(0).random((50, 3)), None, "binary"),
        (np.random.default_rng(0).normal(size=(50, 3)), ["standardise"], "real"),
        (np.random.default_rng(0).integers(0, 9, (50, 3)), ["standardise"], "real"),
    ],
)
def test_automatic_choice(values, names, layout):
    data = gd.load(values)
    assert data.transform.names == (names or ["stochastic-binarise"])
    assert data.layout == [(layout, 3)]


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "uint8", "bool", "int8", "uint16", "int64", ">f4"]
)
def test_float64_or_uint8_input_refused_with_a_dtype_error(dtype):
    values = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(dtype)
    for source in (values, torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))):
        data = gd.load(source, seed=0)
        x = data.train.tensor()
        assert x.dtype == torch.float32
        assert torch.equal(x, torch.from_numpy(values[data.train.index].astype(np.float32)))
    big = gd.load(np.arange(40, dtype="uint16").reshape(20, 2) * 1000, transform="identity")
    assert big.train.tensor().max() > 32_767
    assert gd.load(torch.ones(9, 2, dtype=torch.bfloat16)).train.tensor().dtype == torch.float32


def test_bits_that_are_constant_in_training_keep_both_values_in_one_hot() -> None:
    rows = np.zeros((40, 3), np.uint8)
    rows[:, 1] = np.arange(40) % 2
    data = gb.data.load(rows.astype(bool), transform="one-hot", validation=0.1, test=0.1)
    assert data.layout == [("onehot", 2)] * 3
