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
    inline,
    is_on,
    kernel,
    log,
    padded,
    philox,
    turn,
    unit,
)

# pyright: reportCallIssue=false, reportPrivateImportUsage=false

# Of a row by vectors; of three, a fifth of the units at the most is left for the fourth.
_ATTEMPTS = 3


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
    accepted with probability exp(−(x + a − λ)²/2), where λ − a = 1/λ. Both are exact, and the second forms
    x itself, so nothing cancels far in the tail. The first attempts are made for the whole row, by vectors.
    """
    n = len(f)
    bias, deviation = floats(h[EXTRA], n), floats(h[EXTRA + 1], n)
    low, high = U(r), U(W(r) >> W(32))
    for j in range(n):
        spare[j] = F(-1)
    for attempt in range(_ATTEMPTS):
        for j in range(n):
            a = -(f[j] + bias[j]) * deviation[j]
            w0, w1, _, _ = philox(U(j), low, high, U(attempt), k0, k1)
            x = _proposal(a, w0, w1)
            spare[j] = spare[j] if spare[j] >= F(0) else x
    for j in range(n):
        a = -(f[j] + bias[j]) * deviation[j]
        x, attempt = spare[j], U(_ATTEMPTS)
        # Where a is not a number nothing can be drawn, and x is none either.
        x = a if np.isnan(a) else x
        while x < F(0):
            w0, w1, _, _ = philox(U(j), low, high, attempt, k0, k1)
            x = _proposal(a, w0, w1)
            attempt = U(attempt + U(1))
        s[j] = x * deviation[j]


@inline
def _proposal(a, w0, w1):
    """Return x from two words, or −1 where it is refused."""
    logarithm = log((F(I(w0 >> U(1))) + F(0.5)) * F(2.0**-31))
    cosine, _ = turn(F(I(w1)) * F(2.0**-32))
    normal = np.sqrt(F(-2) * logarithm) * cosine - a
    # Beyond 10⁹ the square may be too large for float32, and 4 makes no difference.
    mean = F(2) / (a + (a if a > F(1e9) else np.sqrt(a * a + F(4))))
    # A zero less a product is never −0, which the logarithm of 1 would make of a product alone.
    trial = F(0) - logarithm * mean
    gap = trial - mean
    chance = log((F(I(w1 >> U(1))) + F(0.5)) * F(2.0**-31))
    exponential = trial if chance <= F(-0.5) * gap * gap else F(-1)
    return (normal if normal >= F(0) else F(-1)) if a < F(0.257) else exponential


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
