"""The certificate as a part of the report."""

from gibbsian.evaluators import Certificate
from gibbsian.report_page import Section

_ROWS = {
    "starts": "noise-started against data-started chains",
    "convergence": "convergence",
    "drift": "drift of the free energy",
    "autocorrelation": "autocorrelation time",
    "held_out": "samples against held-out rows",
    "source": "training rows against held-out rows",
    "resemblance": "nearest neighbours, AA_TS",
    "privacy": "privacy loss",
    "coverage": "precision, recall, density, coverage",
    "covariance": "pair covariances, ε⁽²⁾",
}


def certificate_section(certificate: Certificate | None) -> Section | None:
    """Lay the certificate out: its verdict, and a table of its checks with their numbers."""
    if certificate is None:
        return None
    rows = [(_ROWS.get(c.name, c.name), c.verdict, c.words) for c in certificate.checks]
    return Section(
        "Certificate",
        f"{certificate.words[0]} Agreement has to be shown by intervals that lie within a margin, so "
        "scarce chains or rows cannot earn it.",
        table=[("check", "verdict", "numbers"), *rows],
    )
