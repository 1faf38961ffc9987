"""The page of a comparison: the verdict in words, the table, the pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from gibbsian import report_page, runs
from gibbsian.comparison.plan import Plan
from gibbsian.comparison.table import lines, nats, settings
from gibbsian.report_page import Finding, Section, Verdict

Rows = Sequence[Mapping[str, Any]]


def render(plan: Plan, rows: Rows, sections: Sequence[Section]) -> str:
    """Lay the comparison out as one self-contained HTML page."""
    held = rows[0]["held_out"]
    count = rows[0]["denoising"]["rows"]
    damaged = rows[0]["denoising"]["damaged"]
    before = (
        f"{damaged['squared']:.4f} squared error"
        if damaged["wrong"] is None
        else f"{damaged['wrong']:.2%} wrong"
    )
    table = Section(
        "Side by side",
        f"Log-likelihoods are mean nats per {held} row, of the columns as the models see them; under "
        "several hidden layers, a variational lower bound (≥). AIS overestimates on average and reverse AIS "
        "underestimates, on condition that its chains start at equilibrium. Denoising: "
        f"{count:,} {held} rows with {plan.figures.flip:.0%} of their entries damaged, {before} "
        "before; errors are given or taken by one standard error over rows. Peak memory is that of the "
        "whole process while the model was trained, with Python, PyTorch and the data in it. "
        f"{settings(plan)}",
        table=[*zip(*lines(rows), strict=True)],
    )
    return report_page.render(
        plan.title, _subtitle(plan, rows), verdict(rows), _cards(rows), [table, *sections],
        tomli_w.dumps(runs.plain_config(plan.as_dict())),
    )  # fmt: skip


def verdict(rows: Rows) -> Verdict:
    """Say in words which models are likeliest, and which numbers and samples can be believed."""
    findings = [f for row in rows for f in _findings(row)]
    known = [r for r in rows if r["likelihood"] and r["likelihood"]["believed"]]
    oks = [f.ok for f in findings]
    status = "good" if all(ok is True for ok in oks) else "doubtful" if known else "bad"
    return Verdict(status, _headline(known, len(rows)), findings)


def _headline(known: Rows, count: int) -> str:
    """Name the likeliest model, those that its interval does not tell from it, and those that may exceed it.

    A model that is known by a lower bound alone may be likelier than its number says.
    """
    if not known:
        return "No model's likelihood is known: none of the estimates converged."
    order = sorted(known, key=lambda r: -r["likelihood"]["believed"]["value"])
    least = order[0]["likelihood"]["believed"]["low"]
    best = [r for r in order if r["likelihood"]["believed"]["high"] >= least]
    names = " and ".join(r["label"] for r in best)
    values = " and ".join(_least(r) + nats(r["likelihood"]["believed"]["value"]) for r in best)
    among = "of all" if len(known) == count else f"of the {len(known)} whose likelihood is known"
    apart = ", which the intervals of log Z do not tell apart" if len(best) > 1 else ""
    verb = "is" if len(best) == 1 else "are"
    bounded = [r["label"] for r in order if r not in best and r["likelihood"].get("is_bound")]
    open_end = (
        f"; {' and '.join(bounded)}, known by a lower bound alone, may be likelier than that says"
        if bounded
        else ""
    )
    return f"{names} {verb} likeliest {among}: {values} nats per held-out row{apart}{open_end}."


def _findings(row: Mapping[str, Any]) -> list[Finding]:
    """Return a finding on a model's likelihood, and one on its samples."""
    found = row["likelihood"]
    believed = found["believed"] if found else None
    if believed is None:
        first = Finding(None, f"{row['label']}: no estimate of the likelihood can be believed.")
    else:
        low, high = nats(believed["low"]), nats(believed["high"])
        value = _least(row) + nats(believed["value"])
        text = (
            f"{row['label']}: log-likelihood {value} nats by {believed['name']}, {low} to {high}."
        )
        first = Finding(True, text)
    state = {"granted": True, "open": None, "too few rows": None}.get(row["certificate"], False)
    return [
        first,
        Finding(state, f"{row['label']}: {row['certificate_words'] or 'no certificate.'}"),
    ]


def _least(row: Mapping[str, Any]) -> str:
    return "at least " if row["likelihood"].get("is_bound") else ""


def _cards(rows: Rows) -> list[tuple[str, str, str]]:
    cards = []
    for row in rows:
        found = row["likelihood"]
        believed = found["believed"] if found else None
        if believed is not None:
            value, note = (
                f"{'≥' if found['is_bound'] else ''}{nats(believed['value'])} nats",
                f"{row['held_out']} log-likelihood, {believed['name']}",
            )
        elif found:
            value, note = f"{nats(found['ais'])} nats", "by AIS, optimistic; not to be believed"
        else:
            value, note = "unknown", "no likelihood"
        cards.append((row["label"], value, note))
    return cards


def _subtitle(plan: Plan, rows: Rows) -> str:
    seconds = sum(r["seconds"] for r in rows)
    return (
        f"{', '.join(r['label'] for r in rows)}: trained on the same data ({plan.data['source']}) in "
        f"{seconds / 60:.1f} minutes together, and judged by the same tests."
    )
