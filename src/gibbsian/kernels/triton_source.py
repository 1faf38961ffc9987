"""The CUDA kernels in Triton: one function a unit family, each a single pass over the field.

Only `cuda` imports this module (and Triton with it), when a kernel is first wanted.

A program draws one block of the flattened field. Randomness comes from counters: Philox 4x32-10
(Salmon et al. 2011) under the key that the call drew on the device. A call to Philox makes four words;
element i takes word i mod 4 of counter (i div 4, draw), unless said otherwise, so that draws depend
neither on the size of blocks nor on their order. Arithmetic is in float32, whatever the field's type.

Triton compiles the text of these functions, so no decorator that wraps them may come between:
`no_type_check` keeps run-time checks of types away.
"""

# pyright: reportMissingImports=false, reportOptionalMemberAccess=false
from typing import no_type_check

try:
    import triton.language as tl
    from triton import jit  # type: ignore[assignment]
    from triton.language import constexpr
except ModuleNotFoundError:  # the module can be read and imported all the same
    tl, constexpr = None, int

    def jit(function=None, **options):  # type: ignore[no-untyped-def]
        """Stand in for Triton's decorator, without and with options."""
        return function or jit


# Widths are not compiled in: a machine of other layers takes the kernels that are there.
kernel = jit(do_not_specialize=["n", "trials", "groups", "categories"])

# Each of the two attempts a round is accepted with probability ½ at least: 64 of them all fail once
# in 10¹⁹ draws.
ROUNDS = constexpr(32)


# --- randomness


@jit
@no_type_check
def four(key, draw, first, COUNTERS: constexpr):
    """Return the four words of each counter from `first` on, as four blocks."""
    zero = tl.zeros((COUNTERS,), tl.uint32)
    # `first` is a multiple of COUNTERS, a power of two: the low word does not overflow in a block.
    low = first.to(tl.uint32) + tl.arange(0, COUNTERS).to(tl.uint32)
    high = zero + (first.to(tl.int64) >> 32).to(tl.uint32)
    return tl.philox(tl.load(key), low, high, zero + draw, zero)


@jit
@no_type_check
def woven(a, b, c, d):
    """Return a₀ b₀ c₀ d₀ a₁ b₁ and so on."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@jit
@no_type_check
def words(key, draw, start, BLOCK: constexpr):
    """Return a word for each element of the block."""
    a, b, c, d = four(key, draw, start // 4, BLOCK // 4)
    return woven(a, b, c, d)


@jit
@no_type_check
def half_up(w):
    """Return w + ½ in float32: precise relative to its size, above 0, at most 2³²."""
    return w.to(tl.float32) + 0.5


@jit
@no_type_check
def exponential(w):
    """Return −log of the uniform (w + ½)/2³², at least 0."""
    return tl.maximum(-tl.log(half_up(w) * 2.3283064365386963e-10), 0.0)


@jit
@no_type_check
def circle(w):
    """Return cosine and sine of a uniform angle: one in ±π/4 by their series, and quarter turns."""
    # The low 30 bits are the angle, times π/2³¹, and the two others the turns.
    t = ((w & 0x3FFFFFFF).to(tl.int32) - 0x20000000).to(tl.float32) * 1.4629180792671596e-09
    z = t * t
    sine = t * (1.0 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880)))))
    cosine = 1.0 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320))))
    odd = (w & 0x40000000) != 0
    x, y = tl.where(odd, -sine, cosine), tl.where(odd, cosine, sine)
    back = (w & 0x80000000) != 0
    return tl.where(back, -x, x), tl.where(back, -y, y)


@jit
@no_type_check
def normals(a, b):
    """Return two independent normal blocks (Box & Muller 1958)."""
    radius = tl.sqrt(2.0 * exponential(a))
    x, y = circle(b)
    return radius * x, radius * y


@jit
@no_type_check
def below(w, odds):
    """Tell where the uniform of w is below 1/(1 + odds).

    u (1 + odds) < 1 is compared as u · odds < 1 − u, with both u and 1 − u made from the word, so that
    either tail keeps its relative precision. Odds that are not a number give False.
    """
    return half_up(w) * odds < half_up(w ^ 0xFFFFFFFF)


# --- where a block is


@jit
@no_type_check
def block(total, n, RUN: constexpr, BLOCK: constexpr, WIDE: constexpr):
    """Return the block's first element, its lanes, which of them exist, and their columns.

    RUN is a power of two that divides n: so many columns at a time follow each other in memory.
    """
    start = tl.program_id(0)
    if WIDE:
        start = start.to(tl.int64)
    start = start * BLOCK
    lane = tl.arange(0, BLOCK)
    inner = lane.to(tl.uint32) % RUN
    column = ((start % n).to(tl.uint32) + (lane.to(tl.uint32) - inner)) % n.to(tl.uint32) + inner
    column = tl.max_contiguous(tl.multiple_of(column, RUN), RUN)
    return start, lane, lane < total - start, column


@jit
@no_type_check
def total_field(field, bias, start, lane, inside, column):
    """Return field + bias in float32."""
    f = tl.load(field + start + lane, mask=inside, other=0.0).to(tl.float32)
    return f + tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)


@jit
@no_type_check
def keep(out, start, lane, inside, s):
    """Write states in the dtype of `out`."""
    tl.store(out + start + lane, s.to(tl.float32).to(out.dtype.element_ty), mask=inside)


# --- the kernels


@kernel
@no_type_check
def bits(p, out, key, total, n, RUN: constexpr, BLOCK: constexpr, WIDE: constexpr):
    """Draw 1 with probability p, else 0."""
    start, lane, inside, _ = block(total, n, RUN, BLOCK, WIDE)
    chance = tl.load(p + start + lane, mask=inside, other=0.0).to(tl.float32)
    w = words(key, 0, start, BLOCK)
    # Above one half, 1 − p is exact.
    chance, rest = chance * 4294967296.0, (1.0 - chance) * 4294967296.0
    s = tl.where(chance < rest, half_up(w) < chance, half_up(w ^ 0xFFFFFFFF) > rest)
    keep(out, start, lane, inside, s)


@kernel
@no_type_check
def bernoulli(field, out, key, total, n, bias, RUN: constexpr, BLOCK: constexpr, WIDE: constexpr):
    """Draw 1 with probability σ(x), x = field + bias, else 0."""
    start, lane, inside, column = block(total, n, RUN, BLOCK, WIDE)
    x = total_field(field, bias, start, lane, inside, column)
    keep(out, start, lane, inside, below(words(key, 0, start, BLOCK), tl.exp(-x)))


@kernel
@no_type_check
def spin(field, out, key, total, n, bias, RUN: constexpr, BLOCK: constexpr, WIDE: constexpr):
    """Draw +1 with probability σ(2x), else −1."""
    start, lane, inside, column = block(total, n, RUN, BLOCK, WIDE)
    x = total_field(field, bias, start, lane, inside, column)
    up = below(words(key, 0, start, BLOCK), tl.exp(-2.0 * x))
    keep(out, start, lane, inside, tl.where(up, 1.0, -1.0))


@kernel
@no_type_check
def binomial(
    field, out, key, total, n, bias, trials,
    RUN: constexpr, BLOCK: constexpr, WIDE: constexpr,
):  # fmt: skip
    """Count `trials` draws of a bit; trial t is draw t of the counter."""
    start, lane, inside, column = block(total, n, RUN, BLOCK, WIDE)
    odds = tl.exp(-total_field(field, bias, start, lane, inside, column))
    s = tl.zeros((BLOCK,), tl.float32)
    for t in range(trials):
        s += below(words(key, t, start, BLOCK), odds).to(tl.float32)
    keep(out, start, lane, inside, s)


@kernel
@no_type_check
def gaussian(
    field, out, key, total, n, bias, precision,
    RUN: constexpr, BLOCK: constexpr, WIDE: constexpr,
):  # fmt: skip
    """Draw N(x/γ, 1/γ); elements 2j and 2j + 1 share a radius and an angle."""
    start, lane, inside, column = block(total, n, RUN, BLOCK, WIDE)
    x = total_field(field, bias, start, lane, inside, column)
    gamma = tl.load(precision + column, mask=inside, other=1.0).to(tl.float32)
    a, b, c, d = four(key, 0, start // 4, BLOCK // 4)
    p, q = normals(a, b)
    r, s = normals(c, d)
    keep(out, start, lane, inside, x / gamma + woven(p, q, r, s) * tl.rsqrt(gamma))


@jit
@no_type_check
def attempt(z, rate, a, b):
    """Propose a value of N(z, 1) that has to be positive; return it and whether it is accepted.

    Above zero the proposal is a normal. Below, it is exponential with Robert's (1995) rate
    α = (√(z² + 4) − z)/2; as α + z = 1/α, it is accepted with probability exp(−((e − 1)/α)²/2), where
    e = α s is the unit exponential.
    """
    e = exponential(a)
    gap = (e - 1.0) / rate
    s = tl.where(z < 0.0, e / rate, z + tl.sqrt(2.0 * e) * circle(b)[0])
    return s, tl.where(z < 0.0, exponential(b) >= 0.5 * gap * gap, s >= 0.0)


@kernel
@no_type_check
def truncated_gaussian(
    field, out, key, total, n, bias, precision,
    RUN: constexpr, BLOCK: constexpr, WIDE: constexpr,
):  # fmt: skip
    """Draw N(x/γ, 1/γ) given s ≥ 0 by rejection, for as long as an element of the block waits.

    The counter is the element, and each of its draws serves two attempts.
    """
    start, lane, inside, column = block(total, n, RUN, BLOCK, WIDE)
    x = total_field(field, bias, start, lane, inside, column)
    deviation = tl.rsqrt(tl.load(precision + column, mask=inside, other=1.0).to(tl.float32))
    z = x * deviation
    # Far below zero √(z² + 4) is −z, and z² may overflow.
    rate = tl.where(z < -1e4, -z, 0.5 * (tl.sqrt(z * z + 4.0) - z))
    s = tl.where(z == z, 0.0, z)
    waits = inside & (z == z)
    draw = 0
    while (draw < ROUNDS) & (tl.max(waits.to(tl.int32), 0) > 0):
        a, b, c, d = four(key, draw, start, BLOCK)
        one, accepted = attempt(z, rate, a, b)
        two, too = attempt(z, rate, c, d)
        s = tl.where(waits, tl.where(accepted, one, two), s)
        waits = waits & ~(accepted | too)
        draw += 1
    keep(out, start, lane, inside, tl.where(s < 0.0, 0.0, s) * deviation)


@kernel
@no_type_check
def softmax(
    field, out, key, blocks, groups, bias, categories,
    ROWS: constexpr, WIDTH: constexpr, WIDE: constexpr,
):  # fmt: skip
    """Draw one category of each one-of-K block by one uniform; the counter is the block."""
    first = tl.program_id(0)
    if WIDE:
        first = first.to(tl.int64)
    first = first * ROWS
    row, k = tl.arange(0, ROWS), tl.arange(0, WIDTH)[None, :]
    inside = (row < blocks - first)[:, None] & (k < categories)
    place = first * categories + row[:, None] * categories + k
    group = ((first % groups).to(tl.uint32) + row.to(tl.uint32)) % groups.to(tl.uint32)
    x = tl.load(field + place, mask=inside, other=-float("inf")).to(tl.float32)
    column = group[:, None] * categories.to(tl.uint32) + k.to(tl.uint32)
    x += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    p = tl.where(k < categories, tl.exp(x - tl.max(x, 1)[:, None]), 0.0)
    edges, whole = tl.cumsum(p, 1), tl.sum(p, 1)
    u, _, _, _ = four(key, 0, first, ROWS)
    passed = edges <= (half_up(u) * 2.3283064365386963e-10 * whole)[:, None]
    # Of the categories that have a probability, the first not passed; by rounding, perhaps the last.
    last = tl.max(tl.where(p > 0.0, k, 0), 1)
    index = tl.min(tl.where((p > 0.0) & ~passed, k, WIDTH), 1)
    index = tl.where(whole == whole, tl.minimum(index, last), 0)
    chosen = (k == index[:, None]).to(tl.float32)
    tl.store(out + place, chosen.to(out.dtype.element_ty), mask=inside)
