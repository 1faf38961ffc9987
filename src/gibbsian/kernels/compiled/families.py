"""Draws of the unit families: one function of a row each."""

import numpy as np

from gibbsian.kernels.compiled.core import (
    EXTRA,
    F,
    I,
    U,
    W,
    exp,
    fill,
    floats,
    is_on,
    kernel,
    log,
    padded,
    philox,
    turn,
    unit,
)

# pyright: reportCallIssue=false, reportPrivateImportUsage=false


def _bernoulli(f, s, r, k0, k1, words, spare, h):
    fill(words, r, 0, k0, k1)
    bias = floats(h[EXTRA], len(f))
    for j in range(len(f)):
        s[j] = F(1) if is_on(f[j] + bias[j], words[j]) else F(0)


def _spin(f, s, r, k0, k1, words, spare, h):
    fill(words, r, 0, k0, k1)
    bias = floats(h[EXTRA], len(f))
    for j in range(len(f)):
        s[j] = F(1) if is_on(F(2) * (f[j] + bias[j]), words[j]) else F(-1)


def _bits(f, s, r, k0, k1, words, spare, h):
    fill(words, r, 0, k0, k1)
    for j in range(len(f)):
        s[j] = F(1) if unit(words[j]) < f[j] else F(0)


def _binomial(f, s, r, k0, k1, words, spare, h):
    """Count bits; the second extra word holds the trials."""
    bias = floats(h[EXTRA], len(f))
    for j in range(len(f)):
        spare[j] = F(0)
    for t in range(h[EXTRA + 1]):
        fill(words, r, t, k0, k1)
        for j in range(len(f)):
            spare[j] += F(1) if is_on(f[j] + bias[j], words[j]) else F(0)
    for j in range(len(f)):
        s[j] = spare[j]


def _gaussian(f, s, r, k0, k1, words, spare, h):
    """Transform pairs of words into normals (Box & Muller 1958); the extras are θ and γ^−½."""
    fill(words, r, 0, k0, k1)
    bias, deviation = floats(h[EXTRA], len(f)), floats(h[EXTRA + 1], len(f))
    pairs = len(words) // 2
    for j in range(pairs):
        u = (F(I(words[j] >> U(1))) + F(0.5)) * F(2.0**-31)
        radius = np.sqrt(F(-2) * log(u))
        x, y = turn(F(I(words[j + pairs])) * F(2.0**-32))
        spare[j] = radius * x
        spare[j + pairs] = radius * y
    for j in range(len(f)):
        d = deviation[j]
        s[j] = d * (spare[j] + d * (f[j] + bias[j]))


def _truncated_gaussian(f, s, r, k0, k1, words, spare, h):
    """Reject until accepted (Robert 1995); the extras are θ and γ^−½.

    With a = −(f + θ)/√γ the standardised draw is y ≥ a, and s = (y − a)/√γ. Where a is low, a normal
    is drawn until it is high enough; else x = y − a is exponential with rate λ = (a + √(a² + 4))/2,
    accepted with probability exp(−(x + a − λ)²/2). Both are exact, and the second forms x itself, so
    nothing cancels far in the tail.
    """
    bias, deviation = floats(h[EXTRA], len(f)), floats(h[EXTRA + 1], len(f))
    low, high = U(r), U(W(r) >> W(32))
    for j in range(len(f)):
        d = np.float64(deviation[j])
        a = -(np.float64(f[j]) + np.float64(bias[j])) * d
        x, attempt = np.nan, U(0)
        rate = 0.5 * (a + np.sqrt(a * a + 4))
        # Where a is not a number nothing can be drawn, and x stays one that is not.
        while np.isnan(x) and not np.isnan(a):
            w0, w1, _, _ = philox(U(j), low, high, attempt, k0, k1)
            u = (np.float64(w0) + 0.5) * 2.0**-32
            v = (np.float64(w1) + 0.5) * 2.0**-32
            if a < 0.257:
                y = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
                x = y - a if y >= a else x
            else:
                trial = -np.log(u) / rate
                gap = trial + a - rate
                # At a = ∞ the gap is not a number, and the state is 0.
                x = x if np.log(v) > -0.5 * gap * gap else trial
            attempt = U(attempt + U(1))
        s[j] = F(x * d)


def _softmax(f, s, r, k0, k1, words, spare, h):
    """Invert the distribution of each block with one word; the second extra word holds K."""
    bias, categories = floats(h[EXTRA], len(f)), h[EXTRA + 1]
    blocks = len(f) // categories
    fill(words[: padded(blocks)], r, 0, k0, k1)
    for j in range(len(f)):
        spare[j] = f[j] + bias[j]
    for i in range(blocks):
        p = spare[i * categories : (i + 1) * categories]
        top = p[0]
        for k in range(1, categories):
            top = max(top, p[k])
        total = 0.0
        for k in range(categories):
            # `exp` stops at e^−87; a category below that has no probability.
            p[k] = exp(p[k] - top) if p[k] - top > F(-87) else F(0)
            total += np.float64(p[k])
        edge, left, index = np.float64(words[i]) * 2.0**-32 * total, 0.0, 0
        for k in range(categories):
            s[i * categories + k] = F(0)
            left += np.float64(p[k])
            index += 1 if left <= edge else 0
        s[i * categories + min(index, categories - 1)] = F(1)


bernoulli = kernel(_bernoulli)
binomial = kernel(_binomial)
bits = kernel(_bits)
gaussian = kernel(_gaussian)
softmax = kernel(_softmax)
spin = kernel(_spin)
truncated_gaussian = kernel(_truncated_gaussian)
