"""The hot inner step: from fields to sampled states, one function a unit family.

Units call these functions and nothing else, so that a faster path for a device changes this room
only. `plain` is PyTorch on any device, and the reference that faster paths are tested against.
"""

from gibbsian.kernels.plain import (
    bernoulli,
    binomial,
    bits,
    gaussian,
    softmax,
    spin,
    truncated_gaussian,
)

__all__ = ["bernoulli", "binomial", "bits", "gaussian", "softmax", "spin", "truncated_gaussian"]
