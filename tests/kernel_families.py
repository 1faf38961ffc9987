"""Every kernel under one signature, for the tests of the compiled ones."""

from torch import Tensor


def categories(n: int) -> int:
    """Return the size of softmax blocks for n columns: the smallest divisor above 1."""
    return next((k for k in range(2, n) if n % k == 0), n)


# Each draws with a module of kernels, from a field, the bias of one row and a generator.
FAMILIES = {
    "bits": lambda k, f, b, g: k.bits((f + b.to(f)).sigmoid(), g),
    "bernoulli": lambda k, f, b, g: k.bernoulli(f, b, g),
    "spin": lambda k, f, b, g: k.spin(f, b, g),
    "binomial": lambda k, f, b, g: k.binomial(f, b, 3, g),
    "gaussian": lambda k, f, b, g: k.gaussian(f, b, b.exp(), g),
    "truncated_gaussian": lambda k, f, b, g: k.truncated_gaussian(f, b, b.exp(), g),
    "softmax": lambda k, f, b, g: k.softmax(f, b, categories(f.shape[-1]), g),
}


def one_a_unit(name: str, states: Tensor) -> Tensor:
    """Return states with one number a unit: a softmax block becomes the index of its category."""
    if name != "softmax":
        return states
    return states.unflatten(-1, (-1, categories(states.shape[-1]))).argmax(dim=-1).to(states)
