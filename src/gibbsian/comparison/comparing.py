"""Trains the models of a plan, judges them alike, and draws them beside each other."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from torch import Generator

from gibbsian import checkpoint, runs
from gibbsian.assessment import evaluate
from gibbsian.comparison import page
from gibbsian.comparison.denoising import Denoised, denoise
from gibbsian.comparison.figures import Pictures, held_out
from gibbsian.comparison.plan import Plan, read
from gibbsian.comparison.table import finite
from gibbsian.comparison.training import Fitted, fit, machines
from gibbsian.errors import GibbsianError, RunError
from gibbsian.machine import BoltzmannMachine

_CONFIG, _TABLE, _PAGE, _EVALUATION = (
    "comparison.toml", "comparison.json", "comparison.html", "comparison.json",
)  # fmt: skip

Tell = Callable[[str], None]
Progress = Callable[[str, float], None]
Watch = Callable[[], AbstractContextManager[Progress | None]]


@dataclass(frozen=True)
class Comparison:
    """What `compare` made.

    Attributes
    ----------
    rows : list of dict
        A table with a row for each model, as plain values: label, layers, updates, seconds, peak_mb,
        likelihood (of held-out rows, both bounds and which estimate to believe), certificate, denoising.
    fitted : tuple of Fitted
        The runs.
    page : Path
        The HTML page; the pictures and ``comparison.json`` lie beside it.
    plan : Plan
        What was asked for.
    """

    rows: list[dict[str, Any]]
    fitted: tuple[Fitted, ...]
    page: Path
    plan: Plan


def compare(
    plan: Plan | None, out: str | Path, *, resume: bool = False, overwrite: bool = False,
    bars: bool = False, tell: Tell | None = None, watch: Watch = nullcontext,
) -> Comparison:  # fmt: skip
    """Train every model of a plan into its own run below `out`, evaluate them, and draw them.

    Parameters
    ----------
    plan : Plan, optional
        From `read`, `preset` or `parse`. Not needed to resume.
    out : path
        Folder of the comparison.
    resume : bool
        Go on with the comparison in `out`: models whose training is complete are left as they are, one
        that was killed goes on from its newest checkpoint, and evaluations that stand are not repeated.
    overwrite : bool
        Replace the comparison in `out`.
    bars : bool
        Show a live bar for each training.
    tell : callable, optional
        Called with a sentence as each part begins.
    watch : callable, optional
        Makes a context for each evaluation, which gives what is called with the name of a stage and the
        fraction of it that is done.

    Returns
    -------
    Comparison

    Raises
    ------
    RunError
        If `out` holds a comparison already, or none to resume.
    GibbsianError
        If a model does not fit the data, before the first is trained.
    """
    out, tell = Path(out), tell or (lambda _: None)
    plan = _begin(plan, out, resume, overwrite)
    built = machines(plan)
    if overwrite:
        _clear(plan, out)
    _publish(out / _CONFIG, tomli_w.dumps(runs.plain_config(plan.as_dict())))
    fitted = []
    for m in plan.models:
        tell(f"Training {m.label} …")
        machine, data = built[m.name]
        fitted.append(fit(m, machine, data, out, progress=bars))
    rows, denoised = [], {}
    for f in fitted:
        tell(f"Evaluating {f.model.label} …")
        with watch() as progress:
            row, denoised[f.model.name] = _row(plan, f, out, progress)
        rows.append(row)
    tell("Drawing …")
    sections = Pictures(plan, fitted, denoised, out).all()
    rows = finite(rows)
    table = {"settings": plan.as_dict(), "models": rows}
    _publish(out / _TABLE, json.dumps(table, indent=1, allow_nan=False))
    _publish(out / _PAGE, page.render(plan, rows, sections))
    return Comparison(rows, tuple(fitted), out / _PAGE, plan)


def _begin(plan: Plan | None, out: Path, resume: bool, overwrite: bool) -> Plan:
    """Look at the folder before anything is written, and return the plan to follow."""
    there = (out / _CONFIG).exists()
    if resume:
        if not there:
            raise RunError(f"{out} holds no comparison to resume; give a folder made by `compare`.")
        stored = read(out / _CONFIG)
        if plan is not None and plan != stored:
            raise RunError(
                f"The comparison in {out} was made with other settings; resume it as it was, or choose "
                "another folder."
            )
        return stored
    if plan is None:
        raise RunError("A comparison needs a plan, such as gibbsian.comparison.preset(…).")
    if there and not overwrite:
        raise RunError(
            f"{out} already holds a comparison; resume it, overwrite it (--overwrite), or choose another "
            "folder."
        )
    if not there and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not empty and is no comparison; choose another folder.")
    return plan


def _clear(plan: Plan, out: Path) -> None:
    """Remove the runs of the comparison that is overwritten.

    All of them go at once, so that none is taken for a new one if the new comparison is killed and resumed.
    """
    names = {m.name for m in plan.models}
    with suppress(
        GibbsianError
    ):  # the runs of a plan that is damaged stay, and nothing looks at them
        names |= {m.name for m in read(out / _CONFIG).models}
    for folder in (out / name for name in sorted(names)):
        if runs.is_run(folder):
            with runs.Run(folder, {}) as run:
                run.lock()  # refuses one that is being trained
            shutil.rmtree(folder)


def _publish(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.publish({path: text.encode()})
    except OSError as error:
        raise RunError(f"cannot write {path}: {checkpoint.explain(error)}.") from error


def _row(
    plan: Plan, f: Fitted, out: Path, progress: Progress | None
) -> tuple[dict[str, Any], Denoised]:
    """Judge one model: its row of the table."""
    machine, drawn = f.trained.machine, plan.figures
    evaluation = _evaluation(plan, f, out / f.model.name / _EVALUATION, progress)
    held, rows = held_out(f, drawn.denoising_rows, plan.seed)
    source = Generator(rows.device).manual_seed(plan.seed)
    denoised = denoise(machine, rows, drawn.flip, drawn.denoising_steps, source)
    certificate = evaluation["certificate"]
    row = {
        "name": f.model.name, "label": f.model.label, "layers": _layers(machine),
        "updates": f.trained.step, "seconds": f.seconds, "peak_mb": f.peak_mb, "held_out": held,
        "likelihood": evaluation[held]["log_likelihood"],
        "certificate": _verdict(certificate),
        "certificate_words": certificate["words"][0] if certificate else "",
        "words": evaluation["words"], "denoising": denoised.as_dict(),
    }  # fmt: skip
    return row, denoised


def _evaluation(plan: Plan, f: Fitted, path: Path, progress: Progress | None) -> dict[str, Any]:
    """Evaluate a run, or take what an evaluation of the same machine with the same settings found."""
    key = {"machine": _digest(f.trained.machine), "seed": plan.seed, **plan.evaluation}
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        stored = {}
    if isinstance(stored, dict) and stored.get("key") == key:
        return stored["evaluation"]
    found = evaluate(f.trained, seed=plan.seed, progress=progress, **plan.evaluation).as_dict()
    text = json.dumps(finite({"key": key, "evaluation": found}), allow_nan=False)
    _publish(path, text)
    return json.loads(text)["evaluation"]


def _digest(machine: BoltzmannMachine) -> str:
    """Return a fingerprint of a machine's parameters."""
    found = hashlib.sha256()
    for name, p in sorted(machine.state_dict().items()):
        found.update(name.encode())
        found.update(p.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _layers(machine: BoltzmannMachine) -> str:
    """Return sizes and families of a machine's layers: 784–200 Bernoulli, or each where they differ."""
    families = [type(u).__name__ for u in machine.layers]
    if len(set(families)) == 1:
        return "–".join(f"{n:,}" for n in machine.sizes) + f" {families[0]}"
    return " – ".join(f"{n:,} {k}" for n, k in zip(machine.sizes, families, strict=True))


def _verdict(certificate: Mapping[str, Any] | None) -> str:
    """Return granted, refused (and for which checks), or open where one could not be decided."""
    if certificate is None:
        return "too few rows"
    if certificate["granted"]:
        return "granted"
    if all(c["verdict"] != "failed" for c in certificate["checks"].values()):
        return "open"
    found = re.search(r"\(.*\)", certificate["words"][0])  # names the checks that failed
    return f"refused {found[0]}" if found else "refused"
