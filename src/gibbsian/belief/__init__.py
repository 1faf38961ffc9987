"""Deep belief networks: the network, its greedy stack, the up-down algorithm, and its classifier."""

from gibbsian.belief.network import DeepBeliefNetwork, Generated, from_spec, stack, with_labels

__all__ = ["DeepBeliefNetwork", "Generated", "from_spec", "stack", "with_labels"]
