"""gibbsian evaluate: the likelihood and which estimate to believe, a certificate, and a verdict."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibbsian.cli import dbn
from gibbsian.cli import options as opt
from gibbsian.comparison.table import finite
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from gibbsian.evaluators import Certificate
    from gibbsian.report_page import Verdict
    from gibbsian.samplers import Sampler
    from gibbsian.trained import Trained

NAME = "evaluate"
EXAMPLES = """Examples:

gibbsian evaluate runs/digits

gibbsian evaluate runs/digits --temperatures 20000 --chains 200 --json

gibbsian evaluate runs/digits --sampler tempering --held-out-margin 0.25

gibbsian evaluate runs/digits --sampler trajectory"""

Chains = Annotated[int, typer.Option(help="Chains of each kind.", min=2)]
Temperatures = Annotated[int, typer.Option(help="Temperatures of AIS.", min=1)]
MixingSteps = Annotated[
    int | None,
    typer.Option(
        help="Steps of the compared chains.", min=8, show_default="20000, or what minutes allow"
    ),
]
LadderSteps = Annotated[
    int | None,
    typer.Option(
        help="Steps of tempering for log Z; 0 leaves it out.", min=0,
        show_default="as cost twice what AIS does",
    ),
]  # fmt: skip
Kernel = Annotated[
    str,
    typer.Option(
        "--sampler",
        help="Of the compared chains: gibbs, tempering, trajectory (of a run trained with --save-trajectory) "
        "or transitions.",
    ),
]
HeldOutMargin = Annotated[
    float,
    typer.Option(
        help="Standard deviations within which samples have to agree with held-out rows.",
        min=0.001, max=0.999,
    ),
]  # fmt: skip
HeldOut = Annotated[
    str | None,
    typer.Option(
        help="Rows that samples have to agree with: test or validation.",
        show_default="test, or else validation",
    ),
]
Rows = Annotated[int, typer.Option(help="Most rows of each split.", min=1)]

_MARGIN = 0.1
# Rows of the table: where a number lies, its format, and where its standard error does.
_LIKELIHOOD, _ERRORS = "log_likelihood", "standard_errors_log_z"
_LINES: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "log-likelihood, exact": ((_LIKELIHOOD, "exact"), ".2f", ()),
    "log-likelihood, ladder": ((_LIKELIHOOD, "ladder"), ".2f", (_LIKELIHOOD, _ERRORS, "ladder")),
    "log-likelihood, trajectory": (
        (_LIKELIHOOD, "trajectory"), ".2f", (_LIKELIHOOD, _ERRORS, "trajectory"),
    ),
    "log-likelihood, on-line": ((_LIKELIHOOD, "online"), ".2f", (_LIKELIHOOD, _ERRORS, "online")),
    "log-likelihood, AIS (optimistic)": (
        (_LIKELIHOOD, "ais"), ".2f", (_LIKELIHOOD, _ERRORS, "ais"),
    ),
    "log-likelihood, reverse AIS (pessimistic)": (
        (_LIKELIHOOD, "reverse_ais"), ".2f", (_LIKELIHOOD, _ERRORS, "reverse_ais"),
    ),
    "gap between the two": ((_LIKELIHOOD, "gap"), ".2f", ()),
    "standard error over rows": ((_LIKELIHOOD, "standard_error_rows"), ".2f", ()),
    "effective chains of AIS": ((_LIKELIHOOD, "ess"), ".1f", ()),
    "pseudo-likelihood": (("pseudo_likelihood",), ".2f", ("pseudo_likelihood_standard_error",)),
    "cross-entropy of reconstruction": (("reconstruction_cross_entropy",), ".2f", ()),
    "squared error of reconstruction, per column": (("reconstruction_error",), ".4f", ()),
}  # fmt: skip


def command(
    path: opt.RunPath,
    chains: Chains = 100,
    temperatures: Temperatures = 10_000,
    mixing_steps: MixingSteps = None,
    ladder_steps: LadderSteps = None,
    sampler: Kernel = "gibbs",
    held_out_margin: HeldOutMargin = _MARGIN,
    held_out: HeldOut = None,
    rows: Rows = 10_000,
    checkpoint: opt.CheckpointName = "latest",
    seed: opt.Seed = 0,
    device: opt.Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Evaluate a run: log Z by a ladder and two bounds, certificate, pseudo-likelihood, reconstruction."""
    from gibbsian.assessment import assess
    from gibbsian.belief.runs import is_belief
    from gibbsian.trained import load

    if is_belief(path):
        compared = (sampler, mixing_steps, held_out_margin, held_out) != (
            "gibbs",
            None,
            _MARGIN,
            None,
        )
        dbn.check_evaluation(compared, checkpoint, device)
        with progress_bar(quiet) as progress:
            dbn.evaluate(path, chains, temperatures, ladder_steps, rows, seed, as_json, progress)
        return
    trained = load(path, checkpoint, device)
    opt.check_memory(trained.machine, chains, "--chains")
    with progress_bar(quiet) as progress:
        found, verdict = assess(
            trained, chains=chains, temperatures=temperatures, mixing_steps=mixing_steps,
            ladder_steps=ladder_steps, sampler=kernel(trained, sampler, seed),
            held_out_margin=held_out_margin, held_out=held_out, rows=rows, seed=seed, progress=progress,
        )  # fmt: skip
    if as_json:
        words = {"status": verdict.status, "headline": verdict.headline}
        typer.echo(json.dumps(finite(found.as_dict() | {"verdict": words}), allow_nan=False))
        return
    _table(found.as_dict())
    tell(verdict)
    tell_certificate(found.certificate)


def kernel(trained: "Trained", name: str, seed: int = 0) -> "Sampler | None":
    """Return the sampler of this name; None for block Gibbs."""
    from gibbsian.samplers import TemperedTransitions, Tempering, TrajectoryTempering

    kernels = {
        "gibbs": lambda: None,
        "tempering": lambda: Tempering(trained.reference),
        "trajectory": lambda: TrajectoryTempering(opt.trajectory(trained, seed)),
        "transitions": lambda: TemperedTransitions(trained.reference),
    }
    if name not in kernels:
        raise GibbsianError(f"--sampler takes {', '.join(kernels)} here, not {name!r}.")
    return kernels[name]()


def tell_certificate(certificate: "Certificate | None") -> None:
    """Print a certificate as text: the verdict, then each check."""
    if certificate is None:
        return
    marks = {"passed": "+", "failed": "-", "undecided": "?", "reported": " "}
    typer.echo(f"\n{certificate.words[0]}")
    for check in certificate.checks:
        typer.echo(f"  {marks[check.verdict]} {check.words}")
    if certificate.decides is not None:
        typer.echo(f"  {certificate.decides}")


def tell(verdict: "Verdict") -> None:
    """Print a verdict as text."""
    marks = {True: "+", False: "-", None: "?"}
    typer.echo(f"\n{verdict.headline}")
    for finding in verdict.findings:
        typer.echo(f"  {marks[finding.ok]} {finding.text}")
    for advice in verdict.advice:
        typer.echo(f"  try: {advice}")


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[str, float], None] | None]:
    """Give a callback for stages and fractions done, drawn on standard error if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell_stage(stage: str, done: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=done)

        yield tell_stage


def _table(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    splits = [k for k in ("train", "validation", "test") if k in found]
    table = Table(title="nats per row, unless said otherwise; ± standard error of log Z")
    table.add_column("")
    for name in splits:
        table.add_column(f"{name}\n{found[name]['rows']:,} rows", justify="right")
    for label, (keys, form, error) in _LINES.items():
        cells = [_cell(found[name], keys, form, error) for name in splits]
        if any(cells):
            table.add_row(label, *cells)
    known = [_value(found[name], (_LIKELIHOOD, "believed")) for name in splits]
    if any(known):
        cells = [
            "" if b is None else "{value:.2f}\n{low:.2f} to {high:.2f}".format(**b) for b in known
        ]
        name = next(b["name"] for b in known if b)
        table.add_row(f"to believe ({name}),\nwith 95 % of log Z", *cells)
    Console(width=110).print(table)
    units = _value(found[splits[0]], ("log_likelihood", "units"))
    if units:
        typer.echo(f"Likelihoods are {units}.")


def _cell(table: Any, keys: tuple[str, ...], form: str, error: tuple[str, ...]) -> str:
    """Return a number in words, with its standard error where there is one."""
    value, spread = _value(table, keys), _value(table, error) if error else None
    if value is None:
        return ""
    return format(value, form) + ("" if spread is None else f" ± {spread:.2f}")


def _value(table: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table
