"""The CPU kernels in numba, run by all threads of a team at once.

Only `library` imports this package (and numba with it), when a kernel is not in the cache of compiled
ones; that cache is keyed by the text of these files.
"""

from gibbsian.kernels.compiled import families, gains, sweeps, truncated

KERNELS = {
    "bernoulli": families.bernoulli,
    "bernoulli_gain": gains.bernoulli,
    "bernoulli_sweeps": sweeps.bernoulli,
    "binomial": families.binomial,
    "bits": families.bits,
    "gaussian": families.gaussian,
    "softmax": families.softmax,
    "spin": families.spin,
    "spin_gain": gains.spin,
    "truncated_gaussian": families.truncated_gaussian,
    "truncated_log_partition": truncated.log_partition,
    "truncated_moments": truncated.moments,
}
