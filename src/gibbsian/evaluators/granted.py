"""What a certificate is: checks that all have to pass, and the verdict in words."""

from dataclasses import dataclass
from typing import Any

from gibbsian.evaluators.checks import Check
from gibbsian.evaluators.mixing import EQUIVALENCE


@dataclass(frozen=True)
class Certificate:
    """A verdict on samples, and the checks that it rests on.

    Attributes
    ----------
    granted : bool
        Whether every check that demands something passed: one that failed, or could not be decided,
        refuses.
    words : list of str
        The verdict in plain sentences: first the whole, then each check with its numbers.
    checks : tuple of Check
    """

    granted: bool
    words: list[str]
    checks: tuple[Check, ...]

    @property
    def needs(self) -> dict[str, int]:
        """About how many chains, steps, rows and samples would decide what could not be decided."""
        open_ = [c.needs for c in self.checks if c.verdict == "undecided"]
        return {k: max(n.get(k, 0) for n in open_) for k in _NEEDED if any(k in n for n in open_)}

    @property
    def decides(self) -> str | None:
        """Say in a sentence what would decide the open checks; None where nothing is open or known."""
        parts = [f"{n:,} {_NEEDED[k]}" for k, n in self.needs.items()]
        if not parts:
            return None
        listed = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
        return f"To decide what is open takes about {listed}."

    def __getitem__(self, name: str) -> Check:
        """Return the check of this name."""
        return {c.name: c for c in self.checks}[name]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "granted": self.granted,
            "words": list(self.words),
            "needs": self.needs,
            "checks": {c.name: c.as_dict() for c in self.checks},
        }


def grant(found: list[Check]) -> Certificate:
    """Grant the certificate if every check that demands something passed, and say so."""
    judged = [c for c in found if c.verdict != "reported"]
    failed = [c.name for c in judged if c.verdict == "failed"]
    open_ = [c.name for c in judged if c.verdict == "undecided"]
    granted = not failed and not open_
    called = [_CALLED[n] for n in (failed or open_)]
    if granted:
        words = f"Certificate granted: {len(judged)} of {len(judged)} checks passed."
        margin = max((float(c.numbers.get("margin", 0)) for c in judged), default=0)
        if margin > EQUIVALENCE:
            words += (
                f" Its margin of ±{margin:g} standard deviations is wider than {EQUIVALENCE}: a mode with a "
                "tenth of the rows could be missing."
            )
    elif failed:
        words = f"Certificate refused: of {len(judged)} checks {len(failed)} failed ({', '.join(called)})."
    else:
        words = (
            f"Certificate not granted: nothing failed, but {len(open_)} of {len(judged)} checks could not "
            f"be decided ({', '.join(called)})."
        )
    certificate = Certificate(granted, [words, *(c.words for c in found)], tuple(found))
    if certificate.decides is not None:
        certificate.words.append(certificate.decides)
    return certificate


_NEEDED = {
    "chains": "chains of each kind",
    "steps": "steps of each",
    "held_out_rows": "held-out rows",
    "samples": "samples that are 2τ apart",
}


_CALLED = {
    "starts": "noise against data starts",
    "convergence": "convergence of the chains",
    "drift": "drift of the free energy",
    "held_out": "samples against held-out rows",
    "equilibrium": "chains against the ladder",
    "resemblance": "nearest neighbours",
    "privacy": "copies of training rows",
}
