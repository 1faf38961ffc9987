"""Moments and log partition functions of Gaussians that are truncated to s ≥ 0."""

import numpy as np

from gibbsian.kernels.compiled.core import EXTRA, F, exp, floats, inline, kernel, log

# pyright: reportCallIssue=false, reportPrivateImportUsage=false

# Beyond it t is 1, and at ∞ it would be no number.
_FAR = 1e12
_DENSITY = F(0.3989422804)  # φ(0)
_LOG_WIDTH = 0.9189385332046727  # ½ log 2π


# With a = −z ≥ 0 and t = (a − 3)/(a + 3), (1 + a) E[y] and (1 + a)² E[y²] for y ~ N(z, 1) given y ≥ 0 are
# smooth on −1 ≤ t < 1, that is for all a. The polynomials were fitted at Chebyshev nodes with 60 digits, and
# are off by 6·10⁻¹⁰ of the value. Nothing cancels far in the tail, as it does in φ/Φ − a. Loops over
# coefficients would keep LLVM from using vectors.


@inline
def _first(t):
    """Return (1 + a) E[y]."""
    p = 3.935362928e-05
    p = p * t + 2.224502815e-05
    p = p * t - 0.0002743434751
    p = p * t - 0.0002257055162
    p = p * t + 0.0009744929817
    p = p * t + 0.001194898178
    p = p * t - 0.002481897779
    p = p * t - 0.004579859787
    p = p * t + 0.005493488791
    p = p * t + 0.0148584783
    p = p * t - 0.01307558021
    p = p * t - 0.04490458957
    p = p * t + 0.04494296608
    p = p * t + 0.1295208069
    p = p * t - 0.2690708192
    p = p * t + 0.005171446019
    p = p * t + 1.13239462
    return p


@inline
def _second(t):
    """Return (1 + a)² E[y²]."""
    p = 0.0002157430714
    p = p * t + 0.0004010316887
    p = p * t - 0.001283514788
    p = p * t - 0.003119709805
    p = p * t + 0.003132159471
    p = p * t + 0.01262541942
    p = p * t - 0.002146314208
    p = p * t - 0.03698043398
    p = p * t - 0.01252435219
    p = p * t + 0.09222254482
    p = p * t + 0.06331271063
    p = p * t - 0.2208748725
    p = p * t - 0.1784417372
    p = p * t + 0.5595924762
    p = p * t + 0.2503667013
    p = p * t - 1.315131018
    p = p * t + 0.3773686042
    p = p * t + 2.411264563
    return p


@inline
def _tail(z):
    """Return a = |z|, 1/(1 + a) and t for z or −z; what is no number stays none."""
    a = abs(z)
    near = _FAR if a > _FAR else a
    return a, 1.0 / (1.0 + a), (near - 3.0) / (near + 3.0)


@inline
def _share(a, first):
    """Return φ(a) and Φ(−a) for a ≥ 0, whose ratio is a + first."""
    density = _DENSITY * exp(F(-0.5 * a * a))
    return np.float64(density), np.float64(density) / (a + first)


def _moments(f, s, r, k0, k1, words, spare, h):
    """Write E[s] and, at an address, E[s²]; the extras are θ, γ^−½ and the address."""
    n = len(f)
    bias, deviation = floats(h[EXTRA], n), floats(h[EXTRA + 1], n)
    square = floats(h[EXTRA + 2] + 4 * r * n, n)
    for j in range(n):
        d = np.float64(deviation[j])
        z = (np.float64(f[j]) + np.float64(bias[j])) * d
        a, small, t = _tail(z)
        below = _first(t) * small
        below2 = _second(t) * small * small
        density, beyond = _share(a, below)
        above = z + density / (1.0 - beyond)
        first = below if z < 0.0 else above
        second = below2 if z < 0.0 else 1.0 + z * above
        s[j] = F(first * d)
        square[j] = F(second * d * d)


def _log_partition(f, s, r, k0, k1, words, spare, h):
    """Write log ∫ exp(x s − γ s²/2) ds over s ≥ 0, x = f + θ; the extras are θ and γ^−½."""
    n = len(f)
    bias, deviation = floats(h[EXTRA], n), floats(h[EXTRA + 1], n)
    for j in range(n):
        d = np.float64(deviation[j])
        z = (np.float64(f[j]) + np.float64(bias[j])) * d
        a, small, t = _tail(z)
        first = _first(t) * small
        _, beyond = _share(a, first)
        # Φ(z)/φ(z) below 0, and Φ(z) above.
        inside = a + first if z < 0.0 else 1.0 - beyond
        logarithm = np.float64(log(F(inside)))
        whole = -logarithm if z < 0.0 else 0.5 * z * z + _LOG_WIDTH + logarithm
        whole = z if z == -np.inf else whole  # `log` takes normal numbers only
        s[j] = F(whole + np.float64(log(deviation[j])))


log_partition = kernel(_log_partition)
moments = kernel(_moments)
