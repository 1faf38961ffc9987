"""What the compiled kernels are made of: randomness, elementary functions, rows in and out.

A kernel takes the address of a header of 64-bit words (the constants below say which is which). Each
thread takes a slot of scratch and then chunks of rows until none is left. Which thread draws a row
does not matter, since randomness comes from counters: the word for column j of row r is a function
of (key, r, j) alone, by Philox 4x32-7 (Salmon et al. 2011). Nothing here allocates or raises.
"""

import inspect

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# pyright: reportCallIssue=false, reportPrivateImportUsage=false
F, I, U, W = np.float32, np.int32, np.uint32, np.uint64  # noqa: E741

# "contract" lets a product and a sum become one instruction; nothing else is reordered.
OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}

# Words of the header.
NEXT, SLOT, FIELD, OUT, ROWS, COLUMNS, KEY, CHUNK, HALF, SCRATCH, STRIDE, EXTRA = range(12)


def inline(function):
    """Make a function part of every kernel that calls it."""
    # Import hooks that check types at run time wrap functions, which numba cannot read.
    return njit(inline="always", **OPTIONS)(inspect.unwrap(function))


# --- what numba lacks: pointers from addresses, an atomic counter, and the bits of a float


@intrinsic
def pointer(typing, address):  # type: ignore[no-untyped-def]
    """Make a pointer of an address."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), emit


@intrinsic
def fetch_add(typing, header, word):  # type: ignore[no-untyped-def]
    """Return a word of the header and add 1 to it, as one step for all threads."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        integer = ir.IntType(64)
        words = builder.bitcast(args[0], integer.as_pointer())
        place = builder.gep(words, [args[1]])
        return builder.atomic_rmw("add", place, ir.Constant(integer, 1), "monotonic")

    return types.int64(types.voidptr, types.int64), emit


@intrinsic
def as_float(typing, x):  # type: ignore[no-untyped-def]
    """Read the bits of an int32 as a float32."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), emit


@intrinsic
def as_int(typing, x):  # type: ignore[no-untyped-def]
    """Read the bits of a float32 as an int32."""

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), emit


@intrinsic
def prefer_wide_vectors(typing):  # type: ignore[no-untyped-def]
    """Let the loops of the calling function use 512-bit vectors, which LLVM shuns by default.

    It does for code that mixes a few of them with other work; a kernel is nothing else for milliseconds.
    """

    def emit(context, builder, signature, args):  # type: ignore[no-untyped-def]
        # llvmlite's own `add` knows no attributes with a value.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), emit


# --- randomness


@inline
def philox(c0, c1, c2, c3, k0, k1):
    """Return four random words for a counter of four words and a key of two: Philox 4x32-7.

    Seven rounds are the fewest that pass all of BigCrush, as the paper reports; ten are its default.
    """
    for _ in range(7):
        p0, p1 = W(c0) * W(0xD2511F53), W(c2) * W(0xCD9E8D57)
        n0 = U(p1 >> W(32)) ^ U(c1) ^ U(k0)
        n2 = U(p0 >> W(32)) ^ U(c3) ^ U(k1)
        c0, c1, c2, c3 = U(n0), U(p1), U(n2), U(p0)
        k0, k1 = U(k0 + U(0x9E3779B9)), U(k1 + U(0xBB67AE85))
    return c0, c1, c2, c3


@inline
def padded(n):
    """Return the number of words drawn for n columns: a multiple of 32, so that vectors fit."""
    return 32 * ((n + 31) // 32)


@inline
def fill(words, row, draw, k0, k1):
    """Fill a row of scratch with random words; `draw` tells apart several fillings of one row."""
    quarter = len(words) // 4
    low, high = U(row), U(W(row) >> W(32))
    for q in range(quarter):
        a, b, c, d = philox(U(q), low, high, U(draw), k0, k1)
        words[q] = a
        words[q + quarter] = b
        words[q + 2 * quarter] = c
        words[q + 3 * quarter] = d


# --- elementary functions that vectorise, to a few units of the last float32 place


@inline
def exp(x):
    """Return e^x, with x held within ±87: 2^round times a polynomial in the rest."""
    t = min(max(x * F(1.4426950), F(-126)), F(126))
    shifted = t + F(12582912.0)  # 1.5 · 2^23: the sum's low bits are t rounded
    f = t - (shifted - F(12582912.0))
    p = F(0.00133908634)
    p = p * f + F(0.00967603192)
    p = p * f + F(0.05550357114)
    p = p * f + F(0.24022107485)
    p = p * f + F(0.69314718803)
    p = p * f + F(1.00000007545)
    return as_float(I(as_int(p) + (as_int(shifted) << I(23))))


@inline
def log(x):
    """Return log x for a normal x > 0: 2 artanh((m − 1)/(m + 1)) + e log 2, with √½ ≤ m < √2."""
    bits = as_int(x)
    e = I((bits - I(0x3F3504F3)) >> I(23))
    m = as_float(I(bits - (e << I(23))))
    s = (m - F(1)) / (m + F(1))
    z = s * s
    p = F(2 / 9)
    p = p * z + F(2 / 7)
    p = p * z + F(2 / 5)
    p = p * z + F(2 / 3)
    p = p * z + F(2)
    return s * p + F(e) * F(0.69314718)


@inline
def turn(t):
    """Return cos and sin of 2πt for |t| ≤ ½, by quarter turns and their series."""
    k = F(4) * t + F(12582912.0)
    quarter = as_int(k) & I(3)
    r = (F(4) * t - (k - F(12582912.0))) * F(1.5707963)
    z = r * r
    s = r * (F(1) + z * (F(-1 / 6) + z * (F(1 / 120) + z * (F(-1 / 5040) + z * F(1 / 362880)))))
    c = F(1) + z * (F(-1 / 2) + z * (F(1 / 24) + z * (F(-1 / 720) + z * F(1 / 40320))))
    odd = (quarter & I(1)) == I(1)
    x, y = (s if odd else c), (c if odd else s)
    x = -x if quarter == I(1) or quarter == I(2) else x
    y = -y if quarter >= I(2) else y
    return x, y


@inline
def is_on(x, word):
    """Tell whether a bit with P(1) = σ(x) is 1, given a random word: u e^{-x} < 1 − u.

    u and 1 − u come from the integer separately, so that both tails keep their relative precision.
    """
    w = I(word >> U(1))
    return (F(w) + F(0.5)) * exp(-x) < F(I(2147483647) - w) + F(0.5)


@inline
def unit(word):
    """Return a uniform float32 in [0, 1), of 24 bits."""
    return F(I(word >> U(8))) * F(2.0**-24)


# --- rows in and out


@inline
def floats(address, n):
    """View n float32 at an address."""
    return numba.carray(pointer(address), (n,), F)


@inline
def halves(address, n):
    """View n bfloat16 at an address, as their bits."""
    return numba.carray(pointer(address), (n,), np.uint16)


@inline
def widen(source, scratch):
    """Turn bfloat16 into float32."""
    for j in range(len(scratch)):
        scratch[j] = as_float(I(I(source[j]) << I(16)))


@inline
def rounded(scratch, out):
    """Round to bfloat16: to nearest, ties to even."""
    for j in range(len(scratch)):
        bits = U(as_int(scratch[j]))
        out[j] = np.uint16((bits + U(0x7FFF) + ((bits >> U(16)) & U(1))) >> U(16))


def kernel(draw):
    """Make the kernel that draws each row with ``draw(f, s, r, key0, key1, words, spare, h)``.

    f are the row's fields and s its states, both float32 (scratch where the tensors are bfloat16);
    r is the row's number; words and spare are scratch; h is the header, for what follows `EXTRA`.
    """
    draw = inline(draw)

    def run(data):  # type: ignore[no-untyped-def]
        prefer_wide_vectors()
        h = numba.carray(data, (16,), np.int64)
        rows, n, chunk, half = h[ROWS], h[COLUMNS], h[CHUNK], h[HALF]
        key = W(h[KEY])
        k0, k1 = U(key), U(key >> W(32))
        room = padded(n)
        base = h[SCRATCH] + fetch_add(data, SLOT) * h[STRIDE]
        words = numba.carray(pointer(base), (room,), U)
        spare = floats(base + 4 * room, room)
        wide, narrow = base + 8 * room, base + 12 * room
        while True:
            first = fetch_add(data, NEXT) * chunk
            if first >= rows:
                break
            for r in range(first, min(first + chunk, rows)):
                start = r * n
                # One call of `draw` for either dtype: it is compiled into each place that calls it.
                if half == 1:
                    widen(halves(h[FIELD] + 2 * start, n), floats(wide, n))
                f = floats(wide if half == 1 else h[FIELD] + 4 * start, n)
                s = floats(narrow if half == 1 else h[OUT] + 4 * start, n)
                draw(f, s, r, k0, k1, words, spare, h)
                if half == 1:
                    rounded(s, halves(h[OUT] + 2 * start, n))

    return run
