"""What a sampler is, how it is run, and where chains start."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian import memory
from gibbsian.arguments import whole
from gibbsian.errors import DataError, GibbsianError
from gibbsian.machine import BoltzmannMachine, Clamp, Clamps, State
from gibbsian.precision import lowered, resolve
from gibbsian.units import base as unit

STARTS = ("noise", "reference", "data")
# Copies of a chain's state while it moves: before and after, its fields, and random numbers.
COPIES = 4

# Steps between which Ctrl-C is heard.
_LEAP = 1000


@dataclass(frozen=True)
class ChainState:
    """The state of chains: one tensor (chains, n_l) a layer, and what a sampler keeps besides."""

    layers: State
    extra: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Info:
    """What a step tells besides its state.

    `fields` are those on the odd layers given the even ones of the new state: gradients and means
    come from them without another product.
    """

    fields: Mapping[int, Tensor]
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


class Sampler(ABC):
    """A Markov kernel that leaves a machine's distribution invariant.

    Attributes
    ----------
    leap : callable or None
        ``leap(machine, state, steps, generator, clamps)`` makes many steps at once, as `step` would one
        by one, and returns None where that is no faster. `run` uses it where nobody looks in between.
    beside : callable or None
        ``beside(machine, state, data, generator)`` makes one step, and forms the fields on the odd layers for
        the full states `data` as well, in the same products. It returns the chains, the even layers of both
        stacked (the data's rows first), and the fields for them; None where it does not apply.
    draws_visible : bool
        Whether a step draws the visible layer from the field of the state before, whose conditional means
        then belong to it. Where it does not, `sample` takes the means from the state after the step.
    """

    leap: Callable[..., tuple[ChainState, Info] | None] | None = None
    beside: Callable[..., tuple[ChainState, State, dict[int, Tensor]] | None] | None = None
    draws_visible = True

    @abstractmethod
    def init(
        self, machine: BoltzmannMachine, visible: Float[Tensor, "chains n"],
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> ChainState:  # fmt: skip
        """Make the state of chains whose visible layer is `visible`."""

    @abstractmethod
    def step(
        self, machine: BoltzmannMachine, state: ChainState,
        generator: Generator | None, clamps: Clamps | None = None,
    ) -> tuple[ChainState, Info]:  # fmt: skip
        """Move every chain by one step; the state handed in is not changed."""

    def footprint(self, machine: BoltzmannMachine) -> int:
        """Return how many numbers each chain takes while it moves, as far as is known before `init`."""
        return COPIES * sum(machine.sizes)


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Attributes
    ----------
    samples : Tensor (n, visible)
        Final states of the visible layer: samples, not means.
    means : Tensor (n, visible)
        Conditional means E[v | h] of the last step, for pictures.
    trace : Tensor (len(at), n, visible) or None
        Visible states at the steps asked for.
    at : tuple of int
        These steps.
    state : ChainState
        Everything needed to go on.
    """

    samples: Tensor
    means: Tensor
    trace: Tensor | None
    at: tuple[int, ...]
    state: ChainState


def run(
    sampler: Sampler,
    machine: BoltzmannMachine,
    state: ChainState,
    steps: int,
    generator: Generator | None,
    clamps: Clamps | None = None,
    visit: Callable[[int, ChainState, Info], None] | None = None,
) -> tuple[ChainState, Info | None]:
    """Move chains by `steps` steps, calling ``visit(step, state, info)`` after each."""
    info, done = None, 0
    with torch.no_grad():
        while visit is None and sampler.leap is not None and done < steps:
            many = min(_LEAP, steps - done)
            moved = sampler.leap(machine, state, many, generator, clamps)
            if moved is None:
                break
            (state, info), done = moved, done + many
        for i in range(done + 1, steps + 1):
            state, info = sampler.step(machine, state, generator, clamps)
            if visit is not None:
                visit(i, state, info)
    return state, info


def start(
    machine: BoltzmannMachine,
    chains: int,
    where: str | Float[Tensor, "chains n"],
    generator: Generator | None,
    data: Float[Tensor, "rows n"] | None = None,
) -> Float[Tensor, "chains n"]:
    """Draw visible states to start chains from.

    ``noise`` carries no information of the data (uniform bits, N(0, 1) for real units);
    ``reference`` draws from independent units fitted to the data; ``data`` takes rows of the data
    at random, without replacement while they last, and draws bits where they hold probabilities.
    A tensor is taken as it is.

    Raises
    ------
    GibbsianError
        If the name is unknown, or data are needed and not given.
    DataError
        If the data do not fit the visible layer.
    """
    like = next(machine.parameters())
    if not isinstance(where, str):
        rows = as_rows(where, "Chains start from noise, reference, data or rows of values")
        machine.check(rows, "the start")
        return rows.to(like)
    chains = whole(chains, "The number of chains")
    visible = machine.layers[0]
    if where == "noise":
        return visible.domain.noise(chains, generator).to(like)
    if where not in STARTS:
        raise GibbsianError(f"Chains start from {', '.join(STARTS)} or a tensor, not {where!r}.")
    if data is None:
        raise GibbsianError(f"Chains that start from {where} need the data; give them as data=….")
    data = as_rows(data, "The data to start from are rows, such as dataset.train.tensor()")
    machine.check(data)
    if where == "reference":
        from gibbsian.path import reference

        fitted = reference(machine, data).layers[0]
        return fitted.sample(like.new_zeros(chains, visible.size), generator)
    device = like.device if generator is None else generator.device
    order = [
        torch.randperm(len(data), generator=generator, device=device)
        for _ in range(-(-chains // len(data)))
    ]
    rows = data[torch.cat(order)[:chains].to(data.device)].to(like)
    return unit.states(visible, rows, generator)


def as_rows(x: Any, what: str) -> Tensor:
    """Return rows given as a tensor, an array or lists as a tensor."""
    if isinstance(x, Tensor):
        return x
    try:
        return torch.as_tensor(np.asarray(x, dtype=np.float64))
    except (TypeError, ValueError):
        raise GibbsianError(f"{what}, not {x!r:.60}.") from None


def as_sampler(sampler: Any, error: type[GibbsianError] = GibbsianError) -> Sampler:
    """Return a sampler as it was given, block Gibbs for None.

    Raises
    ------
    GibbsianError
        Or the class of `error`, if it is a name, a class, or something else that makes no steps.
    """
    from gibbsian.samplers.gibbs import Gibbs

    if sampler is None:
        return Gibbs()
    if not isinstance(sampler, Sampler):
        raise error(
            "The sampler must be an object such as gb.Gibbs() or gb.Tempering(rows), and "
            f"{sampler!r:.60} is not."
        )
    return sampler


def check_memory(sampler: Sampler, machine: BoltzmannMachine, chains: int, frames: int = 0) -> None:
    """Refuse more chains of a sampler than fit into the free memory, with `frames` of them kept besides.

    Raises
    ------
    GibbsianError
        With both sizes.
    """
    # Frames are kept one by one, and stacked at the end.
    numbers = chains * (sampler.footprint(machine) + 2 * frames * machine.sizes[0])
    what = f"{chains:,} chains of {type(sampler).__name__}"
    memory.check(next(machine.parameters()), numbers, what, "ask for fewer chains")


_start = start  # `sample` has an argument called start


def sample(
    machine: BoltzmannMachine,
    n: int = 64,
    steps: int = 1000,
    *,
    start: str | Float[Tensor, "n visible"] = "noise",
    clamp: Mapping[int, Clamp] | tuple[Tensor, Tensor] | None = None,
    generator: Generator | int | None = None,
    sampler: Sampler | None = None,
    data: Float[Tensor, "rows n"] | None = None,
    record: Sequence[int] = (),
    precision: str = "fp32",
) -> Samples:
    """Sample from a machine by Markov chains, block Gibbs unless another sampler is given.

    Parameters
    ----------
    machine : BoltzmannMachine
    n : int
        Number of chains; each yields one sample. The rows of a tensor in `start` count instead.
    steps : int
        Steps of each chain.
    start : {"noise", "reference", "data"} or Tensor (n, visible)
        Where the chains start; see `gibbsian.samplers.start`.
    clamp : mapping of layer to Clamp, or (mask, value) for the visible layer
        Units held at given values, for inpainting and class-conditional samples.
    generator : torch.Generator or int
        Source of all randomness, or a seed for one; seed 0 unless given.
    sampler : Sampler
        The Markov kernel.
    data : Tensor (rows, visible)
        Needed for starts other than noise.
    record : sequence of int
        Steps (0 is the start) at which the visible layer is kept in `trace`.
    precision : {"fp32", "bf16", "auto"}
        Of the chains' products: see `gibbsian.precision`. bf16 is several times as fast on processors
        made for it, which auto finds out, and samples couplings rounded to 8 bits.

    Returns
    -------
    Samples

    Raises
    ------
    GibbsianError
        If a setting is impossible, the machine's partition function is infinite, or chains of a sampler that
        changes the machine leave all finite values.
    """
    steps = _check_request(machine, steps, record)
    generator = as_generator(generator, machine)
    sampler = as_sampler(sampler)
    named = isinstance(start, str)
    if named:
        check_memory(sampler, machine, whole(n, "The number of chains"), len(record))
    begin = _start(machine, n, start, generator, data)
    if not named:
        check_memory(sampler, machine, len(begin), len(record))
    clamps = _clamps(machine, clamp, len(begin))
    walker = lowered(machine, resolve(precision, begin.device))
    with torch.no_grad():
        state = sampler.init(walker, begin, generator, clamps)
    kept = {0: state.layers[0].to(begin, copy=True)} if 0 in record else {}
    # The means of the last step come from the field that its visible layer is drawn from.
    before, done = max(steps - 1, 0), 0
    with torch.no_grad():
        for i in sorted({*record, before}):
            if 0 < i <= before:
                state, _ = run(sampler, walker, state, i - done, generator, clamps)
                done = i
                if i in record:
                    kept[i] = state.layers[0].to(begin, copy=True)
        means = unit.mean(machine.layers[0], machine.field(0, _wide(state, begin).layers))
        if steps > 0:
            state, _ = sampler.step(walker, state, generator, clamps)
            if not sampler.draws_visible:
                means = unit.mean(machine.layers[0], machine.field(0, _wide(state, begin).layers))
            if steps in record:
                kept[steps] = state.layers[0].to(begin, copy=True)
    if clamps and 0 in clamps:
        means = clamps[0].apply(means)
    at = tuple(sorted(kept))
    trace = torch.stack([kept[i] for i in at]) if at else None
    state = _wide(state, begin)
    if not all(bool(torch.isfinite(s).all()) for s in state.layers):
        raise GibbsianError(
            f"Chains left all finite values within {steps} steps: what {type(sampler).__name__} samples has "
            "no finite partition function, or parameters that are no numbers. Take another sampler, or a "
            "lower rate of this one; machine.is_proper() tells whether it is the machine."
        )
    return Samples(state.layers[0], means, trace, at, state)


def _wide(state: ChainState, like: Tensor) -> ChainState:
    """Return chains with their layers in the dtype of `like`."""
    return replace(state, layers=tuple(s.to(like) for s in state.layers))


def as_generator(generator: Generator | int | None, machine: BoltzmannMachine) -> Generator:
    """Return a generator on the machine's device: as given, or made from a seed (0 if None)."""
    device = next(machine.parameters()).device
    if isinstance(generator, Generator):
        if generator.device.type != device.type:
            raise GibbsianError(
                f"The generator is on the device {generator.device} and the machine on {device}; make "
                f"it with torch.Generator('{device}')."
            )
        return generator
    seed = whole(0 if generator is None else generator, "The seed of a generator", 0)
    return Generator(device=device).manual_seed(seed % 2**63)


def _check_request(machine: BoltzmannMachine, steps: int, record: Sequence[int]) -> int:
    if not isinstance(machine, BoltzmannMachine):
        raise GibbsianError(
            f"Samples come from a machine, such as result.machine of a training, not from "
            f"{type(machine).__name__}."
        )
    steps = whole(steps, "The number of steps", 0)
    if any(whole(i, "A recorded step", 0) > steps for i in record):
        raise GibbsianError(f"Recorded steps lie from 0 to {steps}, not at {max(record)}.")
    check_proper(machine)
    return steps


def check_proper(machine: BoltzmannMachine) -> None:
    """Raise a `GibbsianError` if the machine has no distribution for chains to reach."""
    norm = machine.coupling_norm()
    if not norm < 1:
        raise GibbsianError(
            f"This machine has no finite partition function (coupling norm {norm:.3g}, must be "
            "below 1), so its chains diverge; train it with gibbsian, which keeps it proper."
        )


def _clamps(
    machine: BoltzmannMachine,
    clamp: Mapping[int, Clamp] | tuple[Tensor, Tensor] | None,
    chains: int,
) -> dict[int, Clamp] | None:
    """Check what is to be held, and bring it to the machine's dtype and device."""
    if clamp is None:
        return None
    if isinstance(clamp, tuple) and len(clamp) == 2:
        mask, value = (torch.as_tensor(part) for part in clamp)
        return {0: _held(machine, 0, mask, value, chains)}
    if not isinstance(clamp, Mapping):
        raise GibbsianError(
            "What to hold is a pair (mask, value) for the visible layer, or a table of layer numbers "
            "and gb.Clamp(mask, value)."
        )
    return {i: _held(machine, i, c.mask, c.value, chains) for i, c in clamp.items()}


def _held(machine: BoltzmannMachine, layer: int, mask: Tensor, value: Tensor, chains: int) -> Clamp:
    """Check one layer's mask and values."""
    if not 0 <= layer < len(machine.layers):
        raise GibbsianError(
            f"There is no layer {layer} to hold; layers run from 0 to {len(machine.layers) - 1}."
        )
    units, n = machine.layers[layer], machine.sizes[layer]
    fits = all(t.shape in ((n,), (1, n), (chains, n)) for t in (mask, value))
    if not fits or mask.dtype != torch.bool:
        raise GibbsianError(
            f"Holding units of layer {layer} needs a boolean mask and values of shape ({n},) or "
            f"({chains}, {n})."
        )
    for block in mask.split(units.domain.widths, dim=-1):
        if block.shape[-1] > 1 and bool((block.any(-1) != block.all(-1)).any()):
            raise GibbsianError(
                f"The mask of layer {layer} cuts through a one-of-{block.shape[-1]} block; hold "
                "such a block whole or not at all."
            )
    like = next(machine.parameters())
    clamp = Clamp(mask.to(like.device), value.to(like))
    rows = max(1 if t.ndim == 1 else len(t) for t in (mask, value))
    filler = units.domain.noise(rows, Generator().manual_seed(0)).to(like)
    try:
        unit.check(units, clamp.apply(filler), "they")
    except DataError as error:
        raise GibbsianError(f"The values to hold in layer {layer} do not fit: {error}") from None
    return clamp
