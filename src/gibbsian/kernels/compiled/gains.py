"""Changes of log partition functions between two temperatures, for annealing."""

import numba
import numpy as np

from gibbsian.kernels.compiled.core import (
    CHUNK,
    COLUMNS,
    EXTRA,
    FIELD,
    NEXT,
    OUT,
    ROWS,
    SCRATCH,
    SLOT,
    STRIDE,
    F,
    I,
    as_float,
    exp,
    fetch_add,
    floats,
    inline,
    padded,
    pointer,
    prefer_wide_vectors,
)

# pyright: reportCallIssue=false, reportPrivateImportUsage=false


def reduction(term):
    """Make the kernel that writes ``term(f, spare, h)``, one float64, for each row of float32."""
    term = inline(term)

    def run(data):  # type: ignore[no-untyped-def]
        prefer_wide_vectors()
        h = numba.carray(data, (16,), np.int64)
        rows, n, chunk = h[ROWS], h[COLUMNS], h[CHUNK]
        spare = floats(h[SCRATCH] + fetch_add(data, SLOT) * h[STRIDE], padded(n))
        out = numba.carray(pointer(h[OUT]), (rows,), np.float64)
        while True:
            first = fetch_add(data, NEXT) * chunk
            if first >= rows:
                break
            for r in range(first, min(first + chunk, rows)):
                out[r] = term(floats(h[FIELD] + 4 * r * n, n), spare, h)

    return run


@inline
def log_ratio(x0, x1):
    """Return log((1 + e^-x1)/(1 + e^-x0)) for x ≥ 0 to full relative precision, by 2 artanh."""
    a0, a1 = exp(-x0), exp(-x1)
    d = (a1 - a0) / (F(1) + a0)
    q = d / (F(2) + d)
    z = q * q
    p = F(2 / 11)
    p = p * z + F(2 / 9)
    p = p * z + F(2 / 7)
    p = p * z + F(2 / 5)
    p = p * z + F(2 / 3)
    return q * (p * z + F(2))


@inline
def _scale(h, word):
    """Return a factor that travels in the header as the bits of a float32."""
    return as_float(I(h[word]))


def _bernoulli_gain(f, spare, h):
    """Sum softplus(β₁f + b₁) − softplus(β₀f + b₀); the extras are b₀, b₁, β₀ and β₁."""
    n = len(f)
    b0, b1 = floats(h[EXTRA], n), floats(h[EXTRA + 1], n)
    beta0, beta1 = _scale(h, EXTRA + 2), _scale(h, EXTRA + 3)
    for j in range(n):
        x0, x1 = beta0 * f[j] + b0[j], beta1 * f[j] + b1[j]
        spare[j] = max(x1, F(0)) - max(x0, F(0)) + log_ratio(abs(x0), abs(x1))
    return _total(spare, n)


def _spin_gain(f, spare, h):
    """Sum log 2cosh(β₁f + b₁) − log 2cosh(β₀f + b₀); the extras are b₀, b₁, β₀ and β₁."""
    n = len(f)
    b0, b1 = floats(h[EXTRA], n), floats(h[EXTRA + 1], n)
    beta0, beta1 = _scale(h, EXTRA + 2), _scale(h, EXTRA + 3)
    for j in range(n):
        x0, x1 = abs(beta0 * f[j] + b0[j]), abs(beta1 * f[j] + b1[j])
        spare[j] = x1 - x0 + log_ratio(F(2) * x0, F(2) * x1)
    return _total(spare, n)


@inline
def _total(x, n):
    """Sum in float64, by four sums that the processor can run side by side."""
    a = b = c = d = 0.0
    whole = n // 4 * 4
    for j in range(0, whole, 4):
        a += np.float64(x[j])
        b += np.float64(x[j + 1])
        c += np.float64(x[j + 2])
        d += np.float64(x[j + 3])
    for j in range(whole, n):
        a += np.float64(x[j])
    return (a + b) + (c + d)


bernoulli = reduction(_bernoulli_gain)
spin = reduction(_spin_gain)
