"""Matrix products in bfloat16, for chains that can stand its rounding.

bfloat16 keeps eight bits: bits, spins and one-of-K states are exact in it, and the matrix units of
recent processors multiply it several times as fast as float32. What is rounded are the couplings (by
up to 1 part in 512, each its own way) and the fields; parameters, biases and random draws stay in
float32. Chains then sample a machine whose couplings are a little off, so only training and chains use this,
never energies or likelihoods.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gibbsian.connections import Connection
from gibbsian.errors import GibbsianError
from gibbsian.machine import BoltzmannMachine
from gibbsian.units.base import Units

PRECISIONS = ("fp32", "bf16", "auto")


def resolve(precision: str, device: torch.device | str) -> str:
    """Return "fp32" or "bf16": what ``auto`` means on this device, or the other names as they are.

    Raises
    ------
    GibbsianError
        If the name is unknown.
    """
    if precision not in PRECISIONS:
        raise GibbsianError(f"A precision is {', '.join(PRECISIONS)}, not {precision!r}.")
    if precision != "auto":
        return precision
    return "bf16" if is_fast(torch.device(device)) else "fp32"


def is_fast(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 faster than float32.

    CPUs with AMX or AVX-512's bfloat16, and NVIDIA GPUs from Ampere on.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))


class Rounded(Connection):
    """A connection whose fields are computed in bfloat16.

    The couplings are rounded once, and again when `refresh` is called after they have moved.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.lower, self.upper = connection.lower, connection.upper
        self.is_matrix = connection.is_matrix
        self._rounded = connection.weight.detach().bfloat16()

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The couplings themselves, in full."""
        return self.connection.weight

    def refresh(self) -> None:
        """Round the couplings anew."""
        self._rounded.copy_(self.connection.weight.detach())

    def up(
        self, a: Float[Tensor, "*batch n"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch m"]:
        """Return the connection's field, in bfloat16."""
        return self.connection.up(a.bfloat16(), _low(weight, self._rounded))

    def down(
        self, b: Float[Tensor, "*batch m"], weight: Tensor | None = None
    ) -> Float[Tensor, "*batch n"]:
        """Return the connection's field, in bfloat16."""
        return self.connection.down(b.bfloat16(), _low(weight, self._rounded))

    def statistics(
        self,
        a: Float[Tensor, "batch n"],
        b: Float[Tensor, "batch m"],
        weights: Float[Tensor, " batch"] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Return the statistics in full: whoever reads them may take small differences."""
        full = self.weight.dtype
        return self.connection.statistics(a.to(full), b.to(full), weights, out)

    def add_statistics(
        self, p: Tensor, a: Float[Tensor, "batch n"], b: Float[Tensor, "batch m"],
        weights: Float[Tensor, " batch"], scale: float,
    ) -> None:  # fmt: skip
        """Add the statistics, times a number, to a tensor in full.

        With signed weights the difference of both phases is taken within the product, whose sums are in
        full. What is rounded are its rows, in both phases alike where they have as many, and its result.
        """
        if not self.is_matrix:
            self.connection.add_statistics(p, a, b, weights, scale)
            return
        half = len(a) / 2  # of two phases of equal size, weights are ±1/half
        low = (b * (half * weights)[:, None]).bfloat16()
        p.add_(torch.mm(a.bfloat16().T, low), alpha=scale / half)


def _low(weight: Tensor | None, rounded: Tensor) -> Tensor:
    return rounded if weight is None else weight.bfloat16()


def lowered(machine: BoltzmannMachine, precision: str = "bf16") -> BoltzmannMachine:
    """Return a machine that shares all parameters and whose products are in bfloat16 where they can be.

    Connections next to a layer whose states bfloat16 does not hold exactly (real values) stay as they
    are, and with ``fp32`` all do: then the machine itself is returned.
    """
    if precision == "fp32":
        return machine
    pairs = zip(machine.joints, machine.layers[:-1], machine.layers[1:], strict=True)
    joints = [rounded(c, low, high) for c, low, high in pairs]
    if all(a is b for a, b in zip(joints, machine.joints, strict=True)):
        return machine
    return BoltzmannMachine(machine.layers, joints)


def rounded(connection: Connection, lower: Units, upper: Units) -> Connection:
    """Return the connection in bfloat16, or itself where that does not hold all states of both layers."""
    return Rounded(connection) if is_exact(lower) and is_exact(upper) else connection


def refresh(machine: BoltzmannMachine) -> None:
    """Round the couplings of a lowered machine anew, after they have moved."""
    for c in machine.joints:
        if isinstance(c, Rounded):
            c.refresh()


def full(machine: BoltzmannMachine) -> BoltzmannMachine:
    """Return the machine that a lowered one stands for, with its products in full."""
    joints = [c.connection if isinstance(c, Rounded) else c for c in machine.joints]
    if all(a is b for a, b in zip(joints, machine.joints, strict=True)):
        return machine
    return BoltzmannMachine(machine.layers, joints)


def is_exact(units: Units) -> bool:
    """Tell whether bfloat16 holds every state of these units exactly."""
    tables = {id(t): t for t in units.domain.blocks()}.values()
    return all(t is not None and torch.equal(t, t.bfloat16().to(t.dtype)) for t in tables)
