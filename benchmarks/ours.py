"""What is timed of gibbsian, and the bare matrix products beside it."""

import torch
from torch import Generator, Tensor

import gibbsian as gb
from benchmarks.sizes import Sizes
from benchmarks.timing import Skipped, Work
from gibbsian.precision import is_fast, lowered
from gibbsian.samplers import Gibbs, run, start
from gibbsian.training import Trainer

# Couplings of this size make conditional means of all values, and a machine that still mixes.
COUPLING = 0.05


def machine(sizes: Sizes, seed: int = 0) -> gb.BoltzmannMachine:
    """Build an RBM with random couplings and biases."""
    made = gb.rbm(sizes.visible, sizes.hidden)
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        made.joints[0].get_parameter("weight").normal_(0, COUPLING, generator=generator)
        made.layers[0].get_parameter("bias").normal_(-0.5, 0.5, generator=generator)
        made.layers[1].get_parameter("bias").normal_(-0.5, 0.5, generator=generator)
    return made


def bits(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Draw random bits, float32: what a product costs does not depend on them."""
    generator = Generator().manual_seed(seed)
    return torch.randint(0, 2, (rows, columns), generator=generator).float()


def bare_sweep(sizes: Sizes, count: int, dtype: torch.dtype = torch.float32) -> Work:
    """The two products of a sweep, written into tensors that are there: nothing else is timed."""
    v, h = bits(sizes.chains, sizes.visible).to(dtype), bits(sizes.chains, sizes.hidden).to(dtype)
    weight = torch.randn(sizes.visible, sizes.hidden).to(dtype)
    down, up = torch.empty_like(v), torch.empty_like(h)

    def work() -> None:
        for _ in range(count):
            torch.mm(h, weight.T, out=down)
            torch.mm(v, weight, out=up)

    return work


def bare_epoch(sizes: Sizes, updates: int) -> Work:
    """The five products of each PCD-1 update: data up, chains down and up, two correlations."""
    v, h = bits(sizes.batch, sizes.visible), bits(sizes.batch, sizes.hidden)
    weight = torch.randn(sizes.visible, sizes.hidden)
    down, up, pair = torch.empty_like(v), torch.empty_like(h), torch.empty_like(weight)

    def work() -> None:
        for _ in range(updates):
            torch.mm(v, weight, out=up)
            torch.mm(h, weight.T, out=down)
            torch.mm(v, weight, out=up)
            torch.mm(v.T, h, out=pair)
            torch.mm(v.T, h, out=pair)

    return work


def sweep(made: gb.BoltzmannMachine, chains: int, count: int) -> Work:
    """Gibbs sweeps of chains that go on from call to call."""
    generator, sampler = Generator().manual_seed(0), Gibbs()
    state = sampler.init(made, start(made, chains, "noise", generator), generator)

    def work() -> None:
        nonlocal state
        state, _ = run(sampler, made, state, count, generator)

    return work


def in_bfloat16(made: gb.BoltzmannMachine) -> gb.BoltzmannMachine:
    """Return the machine with its products in bfloat16, as ``precision="bf16"`` makes it.

    Raises
    ------
    Skipped
        If this CPU is not made for it.
    """
    if not is_fast(torch.device("cpu")):
        raise Skipped("this CPU is not made for bfloat16")
    return lowered(made, "bf16")


def epoch(sizes: Sizes, precision: str = "fp32") -> tuple[Work, int]:
    """An epoch of PCD-1 as `gb.train` runs it, and how many updates it has.

    Plain SGD at a constant rate, and for the rest the defaults: centred gradient, Polyak average,
    the watch for numbers that are not finite. Metrics and checkpoints fall outside.
    """
    rows = bits(sizes.rows, sizes.visible)
    data = gb.data.load(rows, transform="identity", validation=0, test=0)
    settings = gb.Settings(
        batch_size=sizes.batch, updates=10**9, log_every=10**9, checkpoint_every=10**9,
        schedule="constant", precision=precision, monitor_rows=min(500, sizes.rows),
    )  # fmt: skip
    fresh = gb.rbm(sizes.visible, sizes.hidden)
    trainer = Trainer(fresh, data, gb.PCD(chains=sizes.batch), settings)
    return trainer.advance, trainer.epoch_length
