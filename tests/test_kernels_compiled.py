"""What the compiled kernels are made of, against published answers and float64."""

import numpy as np
import pytest
from scipy import special

pytest.importorskip("numba")

from gibbsian.kernels.compiled import core, families


@pytest.fixture(scope="module")
def parts():
    """Compile the parts into one function of arrays."""
    import numba

    @numba.njit
    def parts(x, words, counters):
        n = len(x)
        out, on = np.empty((4, n), np.float32), np.empty(n, np.bool_)
        for i in range(n):
            out[0, i] = core.exp(x[i])
            out[1, i] = core.log(abs(x[i]) + np.float32(1e-37))
            out[2, i], out[3, i] = core.turn(x[i])
            on[i] = core.is_on(x[i], words[i])
        random = np.empty((len(counters), 4), np.uint32)
        for i in range(len(counters)):
            w = counters[i]
            a, b, c, d = core.philox(w[0], w[1], w[2], w[3], w[4], w[5])
            random[i, 0], random[i, 1], random[i, 2], random[i, 3] = a, b, c, d
        return out, on, random

    none = np.zeros((0, 6), np.uint32)

    def call(x, words=None, counters=none):
        words = np.zeros(len(x), np.uint32) if words is None else words
        return parts(x.astype(np.float32), words.astype(np.uint32), counters)

    return call


def test_known_answers_of_philox(parts):
    """Those for seven rounds that Salmon et al. (2011) published with their code."""
    known = """
    00000000 00000000 00000000 00000000 00000000 00000000 5f6fb709 0d893f64 4f121f81 4f730a48
    ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 5207ddc2 45165e59 4d8ee751 8c52f662
    243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 4dfccaba 190a87f0 c47362ba b6b5242a
    """
    rows = [[int(word, 16) for word in row.split()] for row in known.split("\n") if row.strip()]
    table = np.array(rows, dtype=np.uint32)
    _, _, random = parts(np.zeros(0), counters=table[:, :6])
    np.testing.assert_array_equal(random, table[:, 6:])


def test_exponential_and_logarithm(parts):
    x = np.linspace(-87, 87, 100_001).astype(np.float32)
    exp, log, _, _ = parts(x)[0]
    # 1/log 2 and its product with x are rounded, so that the error grows with x.
    error = np.abs(exp / np.exp(x.astype(float)) - 1)
    assert (error <= 3e-7 + 8e-8 * np.abs(x)).all()
    np.testing.assert_allclose(log, np.log(np.abs(x.astype(float)) + 1e-37), rtol=4e-7, atol=1e-7)
    near = 1 - np.geomspace(2.0**-24, 0.5, 10_001)
    u = np.concatenate([np.geomspace(2.0**-32, 1, 50_001), near]).astype(np.float32)
    log = parts(u)[0][1]
    np.testing.assert_allclose(log, np.log(u.astype(float)), rtol=4e-7)
    assert (log <= 0).all()


def test_cosine_and_sine(parts):
    t = np.concatenate([np.linspace(-0.5, 0.5, 100_001), np.arange(-4, 5) / 8]).astype(np.float32)
    _, _, cos, sin = parts(t)[0].astype(float)
    np.testing.assert_allclose(cos, np.cos(2 * np.pi * t.astype(float)), atol=4e-7)
    np.testing.assert_allclose(sin, np.sin(2 * np.pi * t.astype(float)), atol=4e-7)
    np.testing.assert_allclose(cos**2 + sin**2, 1, atol=4e-7)


def test_a_bit_is_one_for_exactly_its_share_of_all_words(parts):
    """Found by bisection, since the words for which a bit is 1 are those below a threshold."""
    x = np.linspace(-30, 30, 6001).astype(np.float32)
    low, high = np.zeros(len(x), np.int64), np.full(len(x), 2**31)
    while (low < high).any():
        middle = (low + high) // 2
        on = parts(x, words=2 * np.minimum(middle, 2**31 - 1))[1]
        going = low < high
        low, high = np.where(going & on, middle + 1, low), np.where(going & ~on, middle, high)
    share = low / 2**31
    for sign, found in ((1, share), (-1, 1 - share)):
        truth = special.expit(sign * x.astype(float))
        room = 1e-6 * truth + 2.0**-32
        assert (np.abs(found - truth) <= room).all()
        assert (np.abs(found - special.expit(sign * x.astype(float) + 2e-6)) > room).any()


@pytest.mark.parametrize("word", [0, 2**32 - 1])
@pytest.mark.parametrize("low", [-1e4, -90.0, -np.inf])
def test_no_word_draws_a_category_without_probability(word, low, monkeypatch):
    """At the two ends of all words, which hardly any draw sees; numba is left out."""
    monkeypatch.setattr(families, "fill", lambda words, *counter: words.fill(word))
    monkeypatch.setattr(families, "padded", lambda n: n)
    monkeypatch.setattr(families, "floats", lambda address, n: np.zeros(n, np.float32))
    monkeypatch.setattr(families, "exp", lambda x: np.exp(np.maximum(x, np.float32(-87))))
    fields = np.array([low, 0.0, 0.0, low, 0.0, low, low, 0.0, low], np.float32)
    states, spare, words = np.zeros(9, np.float32), np.zeros(9, np.float32), np.zeros(3, np.uint32)
    header = np.zeros(16, np.int64)
    header[core.EXTRA + 1] = 3
    families._softmax(fields, states, 0, 0, 0, words, spare, header)
    assert states.reshape(3, 3).sum(axis=1).tolist() == [1, 1, 1]
    assert (fields[states == 1] == 0).all()
