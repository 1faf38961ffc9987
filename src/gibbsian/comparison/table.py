"""The table of a comparison: from plain values to lines of text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gibbsian.comparison.plan import Plan

HEAD = (
    "model", "layers", "updates", "log-likelihood: AIS (optimistic)", "reverse AIS (pessimistic)",
    "to believe", "certificate", "wrong after denoising by means", "by the posterior", "training time",
    "peak memory",
)  # fmt: skip


def lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table as text, the head first; a row is what `gibbsian.comparison.Comparison.rows` holds."""
    return [HEAD, *(_line(row) for row in rows)]


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    found, errors = row["likelihood"] or {}, row["denoising"]
    believed, least = found.get("believed"), "≥ " if found.get("is_bound") else ""
    return (
        row["label"], row["layers"], f"{row['updates']:,}", nats(found.get("ais")),
        least + nats(found.get("reverse_ais")),
        "neither" if believed is None else least + _interval(believed),
        row["certificate"], _error(errors.get("mean-field")), _error(errors.get("posterior")),
        duration(row["seconds"]), "unknown" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f} MB",
    )  # fmt: skip


def _interval(believed: Mapping[str, Any]) -> str:
    low, high = nats(believed["low"]), nats(believed["high"])
    return f"{nats(believed['value'])} [{low}, {high}] ({believed['name']})"


def settings(plan: Plan) -> str:
    """Say in a sentence what the numbers rest on: the transform of the data and the evaluation's settings."""
    chosen = plan.data.get("transform", "auto")
    transform = chosen if isinstance(chosen, str) else ", ".join(chosen)
    judged = ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in plan.evaluation.items())
    return (
        f"Data: {plan.data['source']}, transform {transform}. Evaluation: {judged or 'as is usual'}. "
        f"Seed {plan.seed}."
    )


def nats(value: float | None) -> str:
    """Return a number of nats with two decimals and a true minus sign."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Return a time in seconds, or in minutes where it is long."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _error(found: Mapping[str, Any] | None) -> str:
    """Return the share of wrong pixels, or the squared error where columns have more than two values."""
    if found is None:
        return "–"
    if found["wrong"] is None:
        return f"{found['squared']:.4f} (squared)" + _give_or_take(found["squared_se"], 1, 4)
    return f"{found['wrong']:.2%}" + _give_or_take(found["wrong_se"], 100, 2)


def _give_or_take(error: float | None, times: float, places: int) -> str:
    return "" if error is None else f" ± {times * error:.{places}f}"


def finite(value: Any) -> Any:
    """Put None where JSON has no word for a number."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
