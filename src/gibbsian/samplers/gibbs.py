"""Block Gibbs sampling: all even layers given the odd ones, then all odd given the even ones."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.machine import BoltzmannMachine, Clamps, State
from gibbsian.samplers.base import ChainState, Info, Sampler


class Gibbs(Sampler):
    """Block Gibbs by parity (Geman & Geman 1984): exact conditionals for any units and any depth.

    A step draws the even layers given the odd ones, then the odd given the even: two matrix
    products for an RBM. The fields of the second half come back in `Info`.
    """

    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Place the visible layer; fill deeper even layers by an upward pass; draw the odd ones."""
        state = [visible if not clamps or 0 not in clamps else clamps[0].apply(visible)]
        with torch.no_grad():
            for i in range(1, len(machine.layers)):
                if i == len(machine.layers) - 1 and i % 2:
                    state.append(state[-1])  # the top odd layer is drawn below
                    break
                s = machine.layers[i].sample(machine.joints[i - 1].up(state[-1]), generator)
                state.append(clamps[i].apply(s) if clamps and i in clamps else s)
            draw(machine, state, 1, generator, clamps)
        return ChainState(tuple(state))

    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Draw the even layers, then the odd ones."""
        layers = list(state.layers)
        with torch.no_grad():
            draw(machine, layers, 0, generator, clamps)
            fields = draw(machine, layers, 1, generator, clamps)
        return ChainState(tuple(layers)), Info(fields)

    def leap(
        self, machine: BoltzmannMachine, state: ChainState, steps: int,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info] | None:  # fmt: skip
        """Make the steps in one kernel, for a few free chains of an RBM that has such a kernel."""
        # A class that changes the step has lost the right to this one.
        if clamps or len(machine.layers) != 2 or type(self).step is not Gibbs.step:
            return None
        (low, high), joint = machine.layers, machine.joints[0]
        if low.sweeps is None or low.sweeps is not high.sweeps or not joint.is_matrix:
            return None
        parameters = (joint.weight, low.get_parameter("bias"), high.get_parameter("bias"))
        moved = low.sweeps(*state.layers, *(p.detach() for p in parameters), steps, generator)
        return None if moved is None else (ChainState(moved[:2]), Info({1: moved[2]}))

    def beside(
        self, machine: BoltzmannMachine, state: ChainState, data: State, generator: Generator | None
    ) -> tuple[ChainState, State, dict[int, Tensor]] | None:
        """Make one step, with one product for the chains' rows and the data's in its second half."""
        if type(self).step is not Gibbs.step:
            return None
        layers = list(state.layers)
        with torch.no_grad():
            draw(machine, layers, 0, generator)
            both = [
                torch.cat([a, b]) if i % 2 == 0 else a
                for i, (a, b) in enumerate(zip(data, layers, strict=True))
            ]
            fields = machine.fields(1, both)
            known = {i: f[len(data[0]) :] for i, f in fields.items()}
            draw(machine, layers, 1, generator, fields=known)
        return ChainState(tuple(layers)), tuple(both), fields


def draw(
    machine: BoltzmannMachine,
    layers: list[Tensor],
    parity: int,
    generator: Generator | None,
    clamps: Clamps | None = None,
    fields: dict[int, Tensor] | None = None,
) -> dict[int, Tensor]:
    """Draw the layers of one parity in place of the old ones; return the fields they came from."""
    fields = machine.fields(parity, layers) if fields is None else fields
    for i, f in fields.items():
        s = machine.layers[i].sample(f, generator)
        layers[i] = clamps[i].apply(s) if clamps and i in clamps else s
    return fields
