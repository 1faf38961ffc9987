"""All evaluators in one call: numbers for each split, and sentences that say what to believe."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from gibbsian.arguments import whole
from gibbsian.errors import DataError
from gibbsian.estimators.online import OnlineLogZ
from gibbsian.evaluators.annealing import check_ends
from gibbsian.evaluators.belief import Partition
from gibbsian.evaluators.blocks import check_states
from gibbsian.evaluators.certificate import (
    DRIFT_STEPS,
    certify,
    check_margins,
    check_training,
    held_out_rows,
)
from gibbsian.evaluators.chains import RECORDED, Trace, run_chains
from gibbsian.evaluators.free_energy import check_rows, free_energy_gap
from gibbsian.evaluators.granted import Certificate
from gibbsian.evaluators.likelihood import LogLikelihood, log_likelihood, partition
from gibbsian.evaluators.mixing import EQUIVALENCE, Mixing, check_mixing
from gibbsian.evaluators.observables import observables
from gibbsian.evaluators.pseudo_likelihood import pseudo_likelihood
from gibbsian.evaluators.reconstruction import Reconstruction, reconstruction
from gibbsian.machine import BoltzmannMachine
from gibbsian.path import data_statistics
from gibbsian.path import reference as fit_reference
from gibbsian.samplers import Sampler
from gibbsian.samplers.base import as_generator, as_rows
from gibbsian.trajectory import Trajectory

_CHUNK = 4096
_BUDGET = 1e9
_POINTS = 60  # of the quadrature of a real-valued column, usually
# Products of all chains' steps, in multiplications: a few minutes on one processor core.
_AFFORDABLE = 4e12
_UNITS = 200  # multiplications that a draw of one unit costs as much as
_FEWEST = 1_000
_LEAST_STEPS = 8  # half of which leave the draws that R-hat is read from
_LEAST_CHAINS = 10  # of a ladder whose samples are compared with the chains'
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitEvaluation:
    """The numbers of one split; those a deep machine cannot have are None.

    Attributes
    ----------
    rows : int
    log_likelihood : LogLikelihood or None
        Of a deep machine the variational bound.
    pseudo_likelihood : float or None
        Mean of Σ_b log p(v_b | v_−b) in nats per row, over `pseudo_rows` of the rows.
    pseudo_error : float or None
        Its standard error over rows.
    pseudo_rows : int
    reconstruction : Reconstruction
    """

    rows: int
    log_likelihood: LogLikelihood | None
    pseudo_likelihood: float | None
    pseudo_error: float | None
    pseudo_rows: int
    reconstruction: Reconstruction

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rows": self.rows,
            "log_likelihood": self.log_likelihood.as_dict() if self.log_likelihood else None,
            "pseudo_likelihood": self.pseudo_likelihood,
            "pseudo_likelihood_standard_error": self.pseudo_error,
            "pseudo_likelihood_rows": self.pseudo_rows,
            "reconstruction_error": self.reconstruction.squared_error,
            "reconstruction_error_sum": self.reconstruction.squared_error_sum,
            "reconstruction_cross_entropy": self.reconstruction.cross_entropy,
        }


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    splits : mapping of str to SplitEvaluation
    partition : Partition
        log Z: exact where small, by a ladder, and its two bounds; and which of them to believe.
    mixing : Mixing
    traces : mapping of str to Trace
        Energies and recorded visible states of noise- and of data-started chains, for pictures.
    free_energy_gap : float or None
        Validation minus train (test, where there are no validation rows), nats per row.
    words : tuple of str
        What to believe, in plain sentences.
    certificate : Certificate or None
        From the same chains; None for a single row.
    """

    splits: Mapping[str, SplitEvaluation]
    partition: Partition
    mixing: Mixing
    traces: Mapping[str, Trace]
    free_energy_gap: float | None
    words: tuple[str, ...]
    certificate: Certificate | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: each split under its name, then what belongs to all."""
        return {k: s.as_dict() for k, s in self.splits.items()} | {
            "log_z": self.partition.as_dict(),
            "mixing": self.mixing.as_dict(),
            "free_energy_gap": self.free_energy_gap,
            "words": list(self.words),
            "certificate": self.certificate.as_dict() if self.certificate else None,
        }


def evaluate(
    machine: BoltzmannMachine,
    rows: Mapping[str, Tensor] | Tensor,
    *,
    chains: int = 100,
    temperatures: int = 10_000,
    mixing_steps: int | None = None,
    limit_bits: float = 20,
    ladder_steps: int | None = None,
    trajectory: Trajectory | None = None,
    online: OnlineLogZ | None = None,
    sampler: Sampler | None = None,
    pseudo_rows: int | None = None,
    reference: BoltzmannMachine | None = None,
    dequantisation: str | None = None,
    drift_steps: int = DRIFT_STEPS,
    held_out_margin: float = EQUIVALENCE,
    held_out: str | None = None,
    training_steps: int | None = None,
    training_rows: Iterable[Tensor] | None = None,
    persistent: bool | None = None,
    generator: Generator | int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Evaluation:
    """Evaluate a machine: its likelihood by estimates that check each other, a certificate, cheaper figures.

    Parameters
    ----------
    machine : BoltzmannMachine
    rows : mapping of "train", "validation" and "test" to tensors (rows, visible), or one tensor
        States of the visible units. A tensor alone counts as "test". The reference machine is fitted
        to "train", and chains from data start there (or at the first split there is).
    chains, temperatures : int
        Of AIS and of reverse AIS; see `gibbsian.evaluators.partition`.
    mixing_steps : int, optional
        Steps of the noise- and of the data-started chains that the certificate compares, and whose last
        states start reverse AIS. Unless given, twice `drift_steps`, the first half being left out, or as
        many as a few minutes allow.
    limit_bits : float
        log Z is also exact where one side of the machine has at most 2**limit_bits states.
    ladder_steps : int, optional
        Steps of tempering, for log Z and for starts of reverse AIS at equilibrium: see `partition`; 0
        leaves it out.
    trajectory, online
        What training left: see `partition`. `gibbsian.evaluate` gives a run's.
    sampler : Sampler, optional
        Of the compared chains; block Gibbs unless given.
    pseudo_rows : int, optional
        Most rows of each split, drawn at random, for the pseudo-likelihood; unless given, as many as
        a few seconds allow, and 1,000 at most.
    reference : BoltzmannMachine, optional
        The reference machine, in place of one fitted here.
    dequantisation : str, optional
        The noise that was added to real-valued columns, in words.
    drift_steps, held_out_margin, held_out, training_steps, training_rows, persistent
        Of the certificate: see `gibbsian.evaluators.certify`.
    generator : torch.Generator or int
        Source of randomness, or a seed.
    progress : callable, optional
        Called with the name of the stage and the fraction of it that is done.

    Raises
    ------
    DataError
        If there are no rows, or they are not states of the visible units.
    GibbsianError
        If a setting is impossible, or the machine has no finite log Z.
    """
    # Checked before chains run, which may take long.
    chains = whole(chains, "The number of chains", 2)
    temperatures = whole(temperatures, "The number of temperatures of AIS")
    check_margins(held_out_margin)
    drift_steps = whole(drift_steps, "The steps without drift", 2)
    if mixing_steps is None:
        mixing_steps = _affordable_steps(machine, chains, 2 * drift_steps)
    mixing_steps = whole(mixing_steps, "The number of mixing steps", _LEAST_STEPS)
    if ladder_steps is not None:
        ladder_steps = whole(ladder_steps, "The number of steps of the ladder", 0)
    check_training(training_steps)
    splits = _splits(machine, rows)
    held_out_rows(splits, held_out)  # refuses what is not there, before anything is run
    pseudo_rows = _affordable_rows(machine) if pseudo_rows is None else max(pseudo_rows, 1)
    generator = as_generator(generator, machine)
    first = next(iter(splits.values()))
    base = reference
    if base is None:
        base = fit_reference(machine, data_statistics(machine.layers[0], first.split(_CHUNK)))
    check_ends(machine, base)
    choice = observables(first) if len(first) > 1 else None
    traces = run_chains(
        machine, chains, mixing_steps, data=first, record=RECORDED, generator=generator,
        sampler=sampler, progress=progress, observe=choice,
    )  # fmt: skip
    z = partition(
        machine, first, reference=base, chains=chains, temperatures=temperatures,
        starts={k: t.state.layers for k, t in traces.items()}, equilibrate=mixing_steps,
        limit_bits=limit_bits, ladder_steps=ladder_steps, trajectory=trajectory, online=online,
        generator=generator, progress=progress,
    )  # fmt: skip
    found = {
        k: _split(machine, x, z, pseudo_rows, dequantisation, generator) for k, x in splits.items()
    }
    mixing = check_mixing(traces)
    certificate = None
    if choice is not None:
        certificate = certify(
            machine, splits, traces=traces, choice=choice, held_out_margin=held_out_margin,
            held_out=held_out, drift_steps=drift_steps, training_steps=training_steps,
            training_rows=training_rows, persistent=persistent, equilibrium=_equilibrium(z),
            generator=generator,
        )  # fmt: skip
    words = tuple(_words(machine, z, mixing, certificate))
    return Evaluation(found, z, mixing, traces, _gap(machine, splits), words, certificate)


def _equilibrium(z: Partition) -> Tensor | None:
    """Return samples of the ladder's top, where nothing speaks against it."""
    if z.ladder is None or z.ladder_doubt is not None or z.ladder.chains < _LEAST_CHAINS:
        return None
    return z.ladder.samples


def _affordable_steps(machine: BoltzmannMachine, chains: int, wanted: int) -> int:
    """Return `wanted` steps of chains of both kinds, or as many as `_AFFORDABLE` products allow."""
    sizes = machine.sizes
    products = 2 * sum(a * b for a, b in pairwise(sizes)) + _UNITS * sum(sizes)
    most = int(_AFFORDABLE / (2 * chains * products))
    return min(wanted, max(most, _FEWEST))


def _splits(machine: BoltzmannMachine, rows: Mapping[str, Tensor] | Tensor) -> dict[str, Tensor]:
    """Put the splits into their order, as rows of the machine's dtype, checked."""
    given = dict(rows) if isinstance(rows, Mapping) else {"test": rows}
    unknown = set(given) - set(SPLITS)
    if unknown:
        raise DataError(f"Splits are called {', '.join(SPLITS)}, not {sorted(unknown)[0]!r}.")
    like = next(machine.parameters())
    found = {
        k: as_rows(given[k], f"The {k} data are rows of values").to(like)
        for k in SPLITS
        if given.get(k) is not None
    }
    if not found:
        raise DataError(
            "An evaluation needs rows of at least one split: train, validation or test."
        )
    for k, x in found.items():
        check_rows(machine, x, f"The {k} rows")
        check_states(machine.layers[0], x, f"Likelihoods of the {k} rows")
    return found


def _split(
    machine: BoltzmannMachine,
    x: Tensor,
    z: Partition,
    pseudo_rows: int,
    dequantisation: str | None,
    generator: Generator,
) -> SplitEvaluation:
    errors = reconstruction(machine, x)
    likelihood = log_likelihood(machine, x, z, dequantisation)
    if len(machine.layers) != 2:
        return SplitEvaluation(len(x), likelihood, None, None, 0, errors)
    order = torch.randperm(len(x), generator=generator, device=generator.device)
    pseudo = pseudo_likelihood(machine, x[order[:pseudo_rows].to(x.device)])
    n = len(pseudo)
    error = float(pseudo.std() / n**0.5) if n > 1 else None
    return SplitEvaluation(len(x), likelihood, float(pseudo.mean()), error, n, errors)


def _affordable_rows(machine: BoltzmannMachine) -> int:
    """Return how many rows have their pseudo-likelihood in about `_BUDGET` evaluations of Γ."""
    values = [_POINTS if b is None else len(b) - 1 for b in machine.layers[0].domain.blocks()]
    return min(1_000, 1 + int(_BUDGET / (max(sum(values), 1) * machine.sizes[1])))


def _gap(machine: BoltzmannMachine, splits: Mapping[str, Tensor]) -> float | None:
    held_out = splits.get("validation", splits.get("test"))
    if len(machine.layers) != 2 or held_out is None or "train" not in splits:
        return None
    return free_energy_gap(machine, splits["train"], held_out)


def _words(
    machine: BoltzmannMachine, z: Partition, mixing: Mixing, certificate: Certificate | None
) -> list[str]:
    words = [*z.words(), *mixing.words()]
    believed = z.believed
    if believed is not None and believed.name == "ais" and not mixing.mixed:
        words.append(
            "Reverse AIS started from chains that are not certified as mixed, so the likelihood may "
            "be lower than its bounds say: a mode that no chain has visited is missing from both."
        )
    if believed is not None and believed.name in ("ladder", "trajectory") and _apart(mixing):
        words.append(
            "Chains from data are elsewhere than chains from noise, and if the "
            f"{believed.name} found no more than these, a mode is missing from its log Z and the likelihood "
            "is lower."
        )
    if certificate is not None:
        words.append(certificate.words[0])
        if certificate.decides is not None:
            words.append(certificate.decides)
    if len(machine.layers) != 2:
        words.append(
            f"Under {len(machine.layers) - 1} hidden layers the likelihood of rows is a variational lower "
            "bound by mean field: with the log Z of reverse AIS, an upper bound on average, it stays one, "
            "and with that of AIS it need not. Pseudo-likelihood and free energy of rows have no closed form "
            "and are left out."
        )
    return words


def _apart(mixing: Mixing) -> bool:
    return mixing.comparison is not None and mixing.comparison.verdict == "different"
