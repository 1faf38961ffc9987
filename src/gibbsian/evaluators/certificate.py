"""The certificate: whether samples from noise are samples of the machine, and like held-out data."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gibbsian.arguments import number, whole
from gibbsian.errors import DataError, GibbsianError
from gibbsian.evaluators import checks
from gibbsian.evaluators.chains import Trace, run_chains
from gibbsian.evaluators.checks import Check
from gibbsian.evaluators.equivalence import equivalence
from gibbsian.evaluators.free_energy import free_energies
from gibbsian.evaluators.granted import Certificate, grant
from gibbsian.evaluators.mixing import EQUIVALENCE, Diagnostics, check_mixing, diagnose
from gibbsian.evaluators.observables import Observables, observables
from gibbsian.machine import BoltzmannMachine
from gibbsian.samplers import Sampler
from gibbsian.samplers.base import as_generator, as_rows
from gibbsian.units import base as unit

DRIFT_STEPS = 10_000
_BURN = 0.5
_DRAWS = 1_000  # looked at along each chain: a look costs more than a step of a small machine
_LEAST_ROWS = 4
_ENERGY = "free energy"
_LONGER = "run more or longer chains"
_START = "their start is not forgotten, so run longer chains, or train with more steps and chains"
_APART = "the machine puts its probability elsewhere than the data do: train longer, or with more "
_APART += "chains, a smaller learning rate or more hidden units"


def certify(
    machine: BoltzmannMachine,
    rows: Mapping[str, Tensor] | Tensor,
    *,
    chains: int = 100,
    steps: int = 2 * DRIFT_STEPS,
    drift_steps: int = DRIFT_STEPS,
    margin: float = EQUIVALENCE,
    held_out_margin: float = EQUIVALENCE,
    held_out: str | None = None,
    training_steps: int | None = None,
    training_rows: Iterable[Tensor] | None = None,
    persistent: bool | None = None,
    sampler: Sampler | None = None,
    equilibrium: Float[Tensor, "n visible"] | None = None,
    traces: Mapping[str, Trace] | None = None,
    choice: Observables | None = None,
    generator: Generator | int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Certificate:
    """Certify that chains from noise reach equilibrium, and that their samples are like held-out rows.

    After Decelle, Furtlehner and Seoane (2021), and by equivalence: agreement has to be shown by
    intervals that lie within a margin, which scarce chains or rows widen, so that running less never
    helps. Free energy, magnetisations and pair correlations of noise-started chains are compared with
    those of data-started ones, and with those of held-out rows: see `observables` and `equivalence`.
    The first half of the chains is not looked at.

    Parameters
    ----------
    machine : BoltzmannMachine
    rows : mapping of "train", "validation" and "test" to tensors (rows, visible), or one tensor
        Probabilities of a 1 are drawn as bits. A tensor alone counts as "test".
    chains, steps : int
        Chains of each kind, and steps that each makes; fewer than 100 chains are seldom enough.
    drift_steps : int
        Last steps over which the free energy may not drift; at most half of `steps`.
    margin, held_out_margin : float
        Differences within so many standard deviations count as none, between chains and between chains
        and held-out rows. Fewer than about 2,000 held-out rows cannot show agreement within 0.1: the
        means of 500 rows are themselves known to 0.13 or so, corrected for the number of observables.
    held_out : "test" or "validation", optional
        Which rows count as held out; the test rows unless given, or else the validation rows. Where test
        rows come from elsewhere than training rows, the best machine of the latter is unlike them, and the
        certificate says so: MNIST's lie 0.07 standard deviations off in one principal direction.
    training_steps : int, optional
        Steps of the chains in an update of training, to set beside the autocorrelation time.
    training_rows : iterable of Tensor (rows, visible), optional
        All that the machine learned from, in chunks, where `rows` has only some of it: samples are looked
        for copies of any. `gibbsian.certify` gives them.
    persistent : bool, optional
        Whether these chains were kept from update to update, as PCD's are and CD's are not.
    sampler : Sampler, optional
        Block Gibbs unless given.
    equilibrium : Tensor (n, visible), optional
        Samples of the machine by another way, such as the top of a ladder: chains that differ from them
        are refused; agreement is not demanded, since so few samples could not show it.
    traces : mapping of str to Trace, optional
        Of `run_chains` from noise and from data with ``observe=choice``, in place of new chains.
    choice : Observables, optional
        What `traces` were observed with.
    generator : torch.Generator or int
        Source of randomness, or a seed.
    progress : callable, optional
        Called with the name of a stage and the fraction done.

    Returns
    -------
    Certificate

    Raises
    ------
    DataError
        If there are no rows, not those that are to be held out, or they are not rows of the visible units.
    GibbsianError
        If a setting is impossible, or the traces hold no observables.
    """
    check_margins(margin, held_out_margin)
    check_training(training_steps)
    generator = as_generator(generator, machine)
    splits = _splits(machine, rows, generator)
    train, rows_out = _train(splits), held_out_rows(splits, held_out)
    if traces is None:
        steps = whole(steps, "The number of steps", 16)
        choice = choice or observables(train)
        traces = run_chains(
            machine, whole(chains, "The number of chains", 2), steps, data=train, record=(),
            sampler=sampler, draws=_DRAWS, generator=generator, progress=progress, observe=choice,
        )  # fmt: skip
    series = {k: _series(t) for k, t in traces.items()}
    if choice is None or not {"noise", "data"} <= set(series):
        raise GibbsianError(
            "A certificate needs traces from noise and from data, and the observables they were run with."
        )
    noise, names = traces["noise"], (_ENERGY, *choice.names)
    length = len(noise.energies) * noise.thin
    draws = {k: checks.effective(x) for k, x in series.items()}
    ess = min(min(x) for x in draws.values())
    mixing = check_mixing(traces, _BURN).diagnostics["all"]
    look = partial(_data, machine, choice=choice, margin=held_out_margin)
    found = [
        _starts(series, names, margin, ess, length),
        _convergence(series, names, draws, mixing, length),
        _drift(noise, whole(drift_steps, "The steps without drift", 2)),
        checks.autocorrelation(mixing.autocorrelation_time, training_steps, persistent),
        look(series["noise"], rows_out, ess=min(draws["noise"]), steps=length),
    ]
    if rows_out is not None and "train" in splits:
        found.append(_source(train, rows_out, choice, held_out_margin))
    if equilibrium is not None:
        found.append(_equilibrium(look(series["noise"], equilibrium.to(train))))
    samples = _samples(noise, mixing.autocorrelation_time)
    if training_rows is not None:
        training_rows = _states(machine, training_rows, generator)
    return grant([*found, *_quality(splits.get("train"), rows_out, samples, training_rows)])


def _states(
    machine: BoltzmannMachine, chunks: Iterable[Tensor], generator: Generator
) -> Iterator[Tensor]:
    """Return chunks of rows as states: probabilities are drawn as bits."""
    like = next(machine.parameters())
    return (unit.states(machine.layers[0], x.to(like), generator) for x in chunks)


def certify_samples(
    samples: Float[Tensor, "n visible"],
    rows: Mapping[str, Tensor],
    *,
    held_out_margin: float = EQUIVALENCE,
    held_out: str | None = None,
    training_rows: Iterable[Tensor] | None = None,
) -> Certificate:
    """Certify samples that come from anywhere: likeness to held-out rows, and no copies.

    The checks of `certify` that need no machine. Samples must be independent of each other.

    Parameters
    ----------
    samples : Tensor (n, visible)
    rows : mapping of "train" and "test" (or "validation") to tensors (rows, visible)
    held_out_margin, held_out, training_rows
        See `certify`.

    Raises
    ------
    DataError
        If there are no training rows, or none held out.
    """
    check_margins(held_out_margin, held_out_margin)
    train, rows_out = rows.get("train"), held_out_rows(rows, held_out)
    if train is None or rows_out is None or min(len(train), len(rows_out), len(samples)) < 2:
        raise DataError("Samples are certified against training rows and held-out rows; give both.")
    choice = observables(train)
    found = equivalence(
        choice(samples), choice(rows_out), names=choice.names, margin=held_out_margin
    )
    check = checks.compared(
        "held_out",
        found,
        "Samples and held-out rows",
        (_APART, _ROWS),
        ("samples", "held_out_rows"),
    )
    source = _source(train, rows_out, choice, held_out_margin)
    return grant([check, source, *_quality(train, rows_out, samples, training_rows)])


_ROWS = "give more samples and more held-out rows"
_HELD_OUT = ("test", "validation")


def _splits(
    machine: BoltzmannMachine, rows: Mapping[str, Tensor] | Tensor, generator: Generator
) -> dict[str, Tensor]:
    """Return the rows of each split as states of the machine's dtype."""
    given = dict(rows) if isinstance(rows, Mapping) else {"test": rows}
    like = next(machine.parameters())
    found = {}
    for name, x in given.items():
        if x is None:
            continue
        table = as_rows(x, f"The {name} data are rows of values").to(like)
        machine.check(table, f"The {name} rows")
        found[name] = unit.states(machine.layers[0], table, generator)
    if not found:
        raise DataError("A certificate needs rows: training rows, and rows held out.")
    return found


def _train(splits: Mapping[str, Tensor]) -> Tensor:
    """Return the rows that chains start from and observables are chosen on."""
    return splits.get("train", next(iter(splits.values())))


def held_out_rows(splits: Mapping[str, Tensor], name: str | None) -> Tensor | None:
    """Return the rows of that split; of "test", or else of "validation", where none is named.

    Raises
    ------
    DataError
        If the name is another, or there are no such rows.
    """
    if name is None:
        return splits.get("test", splits.get("validation"))
    if name not in _HELD_OUT:
        raise DataError(f"Rows that are held out are {' or '.join(_HELD_OUT)} rows, not {name!r}.")
    if splits.get(name) is None:
        raise DataError(f"There are no {name} rows to be held out; hold some out, or name others.")
    return splits[name]


def check_margins(*margins: float) -> None:
    """Raise a `GibbsianError` for margins that are not between 0 and 1 standard deviations."""
    for margin in margins:
        if not 0 < number(margin, "The margin of a certificate") < 1:
            raise GibbsianError(
                f"The margin of a certificate lies between 0 and 1 standard deviations, and {margin} "
                "does not."
            )


def check_training(steps: int | None) -> None:
    """Raise a `GibbsianError` for steps of an update that are no whole number, where they are known."""
    if steps is not None:
        whole(steps, "The number of steps of an update")


def _series(trace: Trace) -> Float[Tensor, "draws chains q"]:
    """Return free energy and observables side by side, after the burn-in."""
    if trace.observed is None or trace.late is None:
        raise GibbsianError(
            "These chains were run without observables; give run_chains observe=observables(rows)."
        )
    both = torch.cat([trace.energies[..., None], trace.observed.to(trace.energies)], dim=-1)
    return both[int(_BURN * len(both)) :]


def _starts(
    series: Mapping[str, Tensor], names: tuple[str, ...], margin: float, ess: float, steps: int
) -> Check:
    """Compare chains from noise with chains from data."""
    found = equivalence(
        series["noise"].mean(dim=0), series["data"].mean(dim=0), checks.spread(series["data"]),
        names, margin=margin, ess=ess,
    )  # fmt: skip
    what = "Chains from noise and from data"
    return checks.compared("starts", found, what, (_START, _LONGER), ("chains", "chains"), steps)


def _convergence(
    series: Mapping[str, Tensor],
    names: tuple[str, ...],
    draws: Mapping[str, list[float]],
    energy: Diagnostics,
    steps: int,
) -> Check:
    """Look at the energy, and at the observable with the fewest effective draws."""
    least = [min(x) for x in zip(*draws.values(), strict=True)]
    i = least.index(min(least))
    scarcest = diagnose(torch.cat([x[..., i] for x in series.values()], dim=1))
    return checks.convergence(energy, scarcest, names[i], least[i], steps)


def _drift(noise: Trace, wanted: int) -> Check:
    kept = noise.after(_BURN)
    last = min(len(kept), -(-wanted // noise.thin))
    steps = max(last, 2) * noise.thin
    whole_ = math.ceil(wanted / (1 - _BURN))
    return checks.drift(kept[len(kept) - max(last, 2) :], steps, wanted, whole_)


def _data(
    machine: BoltzmannMachine,
    noise: Tensor,
    held_out: Tensor | None,
    choice: Observables,
    margin: float,
    ess: float | None = None,
    steps: int | None = None,
) -> Check:
    """Compare chains from noise with held-out rows; deep machines have no free energy of rows."""
    if held_out is None or len(held_out) < _LEAST_ROWS:
        words = (
            "No rows were held out, so nobody can say whether samples are like them; hold some out."
        )
        return Check("held_out", "undecided", words)
    noise, rows, names = noise.cpu(), choice(held_out).cpu().double(), choice.names
    means, scatter = noise.mean(dim=0)[:, 1:], noise.flatten(0, 1).double().std(dim=0)
    what = "Samples from noise and held-out rows"
    if len(machine.layers) > 2:
        what = f"{what} (free energy left out: it has no closed form)"
    else:
        energies = free_energies(machine, held_out, "The held-out rows")
        means = noise.mean(dim=0)
        rows = torch.cat([energies[:, None].to(rows), rows], dim=1)
        names = (_ENERGY, *names)
    scale = rows.std(dim=0)
    if len(names) > len(choice.names):
        # A good machine makes the free energy of patterns that are equally frequent nearly constant:
        # their spread alone would be no unit.
        scale[0] = (scale[0].square() / 2 + noise[..., 0].double().var() / 2).sqrt()
    scatter = scatter[-len(names) :]
    found = equivalence(means, rows, scale, names, margin=margin, ess=ess, scatter=scatter)
    few = f"{len(held_out):,} held-out rows may be too few: hold out more, or {_LONGER}"
    return checks.compared(
        "held_out", found, what, (_APART, few),
        ("chains", "held_out_rows"), steps,
    )  # fmt: skip


def _source(train: Tensor, held_out: Tensor, choice: Observables, margin: float) -> Check:
    """Report whether training rows themselves are like those held out, as the best machine would be."""
    if min(len(train), len(held_out)) < _LEAST_ROWS:
        return Check("source", "reported", "There are too few rows to compare training rows with.")
    found = equivalence(choice(train), choice(held_out), names=choice.names, margin=margin)
    advice = (
        "not even a perfect machine of the training rows is like these, so hold out rows that were drawn as "
        "the training rows were",
        "both may be too few",
    )
    check = checks.compared(
        "source", found, "Training rows and held-out rows", advice, ("training_rows", "held_out_rows")
    )  # fmt: skip
    return Check("source", "reported", check.words, check.numbers)


def _equilibrium(found: Check) -> Check:
    """Refuse chains that differ from samples which came another way; demand nothing else."""
    n = dict(found.numbers).get("sizes", [0, 0])[1]
    if found.verdict == "failed":
        words = (
            f"Chains from noise differ from {n:,} samples of the top of the ladder, so either has not "
            "reached equilibrium; run longer chains."
        )
        return Check("equilibrium", "failed", words, found.numbers)
    words = (
        f"Chains from noise are not found to differ from {n:,} samples of the top of the ladder."
    )
    return Check("equilibrium", "reported", words, found.numbers)


def _samples(noise: Trace, tau: float) -> Tensor:
    """Return independent samples: states of the noise-started chains at least 2τ apart."""
    assert noise.late is not None
    span = len(noise.energies) * noise.thin * (1 - _BURN)
    return checks.thinned(noise.late, span / max(len(noise.late), 1), tau)


def _quality(
    train: Tensor | None, held_out: Tensor | None, samples: Tensor,
    training: Iterable[Tensor] | None,
) -> list[Check]:  # fmt: skip
    few = [x is None or len(x) < _LEAST_ROWS for x in (train, held_out, samples)]
    if train is None or held_out is None or any(few):
        words = (
            "Whether samples are copies cannot be told without training rows and held-out rows; give "
            "both."
        )
        return [Check("privacy", "undecided", words)]
    return checks.quality(train, held_out, samples, training=training)
