"""Many Gibbs sweeps of a few chains of bits, without a return to Python."""

import numba
import numpy as np

from gibbsian.kernels.compiled.core import (
    EXTRA,
    NEXT,
    ROWS,
    SCRATCH,
    SLOT,
    STRIDE,
    F,
    U,
    W,
    fetch_add,
    fill,
    floats,
    inline,
    is_on,
    padded,
    pointer,
    prefer_wide_vectors,
)

# pyright: reportCallIssue=false, reportPrivateImportUsage=false


# What the header's words mean here, where they differ.
VISIBLE, HIDDEN, FIELDS, KEYS, N, M = 2, 3, 7, 6, 5, 8
BIAS_V, BIAS_H, WEIGHT, TRANSPOSED, STEPS = range(EXTRA, EXTRA + 5)


@inline
def _add_rows(s, weight, field, found):
    """Set `field` to s W by adding up the rows of W whose bit is on; `found` is scratch for them.

    Four rows at a time: the sum then travels to and from memory a quarter as often.
    """
    count = 0
    for i in range(len(s)):
        found[count] = U(i)
        count += 1 if s[i] != F(0) else 0
    for j in range(len(field)):
        field[j] = F(0)
    whole = count // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = (
            weight[found[k]],
            weight[found[k + 1]],
            weight[found[k + 2]],
            weight[found[k + 3]],
        )
        for j in range(len(field)):
            field[j] += (a[j] + b[j]) + (c[j] + d[j])
    for k in range(whole, count):
        a = weight[found[k]]
        for j in range(len(field)):
            field[j] += a[j]


@inline
def _draw(field, bias, s, words, r, key):
    """Draw a layer, by the same words as `families.bernoulli`."""
    used = words[: padded(len(s))]
    fill(used, r, 0, U(key), U(key >> W(32)))
    for j in range(len(s)):
        s[j] = F(1) if is_on(field[j] + bias[j], used[j]) else F(0)


def bernoulli(data):  # type: ignore[no-untyped-def]
    """Sweep each chain `STEPS` times: visible given hidden, hidden given visible."""
    prefer_wide_vectors()
    h = numba.carray(data, (16,), np.int64)
    rows, n, m, steps = h[ROWS], h[N], h[M], h[STEPS]
    keys = numba.carray(pointer(h[KEYS]), (2 * steps,), np.int64)
    weight = numba.carray(pointer(h[WEIGHT]), (n, m), F)
    transposed = numba.carray(pointer(h[TRANSPOSED]), (m, n), F)
    bias_v, bias_h = floats(h[BIAS_V], n), floats(h[BIAS_H], m)
    room = padded(max(n, m))
    base = h[SCRATCH] + fetch_add(data, SLOT) * h[STRIDE]
    words = numba.carray(pointer(base), (room,), U)
    found = numba.carray(pointer(base + 4 * room), (room,), U)
    field = floats(base + 8 * room, n)
    while True:
        r = fetch_add(data, NEXT)
        if r >= rows:
            break
        visible, hidden = floats(h[VISIBLE] + 4 * r * n, n), floats(h[HIDDEN] + 4 * r * m, m)
        above = floats(h[FIELDS] + 4 * r * m, m)
        for step in range(steps):
            _add_rows(hidden, transposed, field, found)
            _draw(field, bias_v, visible, words, r, W(keys[2 * step]))
            _add_rows(visible, weight, above, found)
            _draw(above, bias_h, hidden, words, r, W(keys[2 * step + 1]))
