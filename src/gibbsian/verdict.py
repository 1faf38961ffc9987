"""An evaluation in words: what holds, what fails, and what to try."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gibbsian.evaluators import Evaluation
from gibbsian.evaluators.belief import LARGEST_GAP
from gibbsian.evaluators.moments import Moments
from gibbsian.report_page import Finding, Verdict

# Samples whose mean free energy lies further from that of held-out rows, in standard deviations of
# the held-out rows' free energy, are not from the data's distribution.
_FAR = 0.5
_OVERFIT = 0.1
# Larger relative errors of means or pair covariances say that the samples are of something else.
_MOMENT_ERROR = 0.25
_STILL_LEARNING = 0.02
_WAYS = " The options are --chains, --mixing-steps, and the share of rows held out when the data are split."
_MARGIN = (
    "Where there are no more rows to hold out, a wider margin (--held-out-margin 0.25) can be shown with "
    "fewer of them; it sees less, such as a missing mode with a tenth of the rows, and the certificate then "
    "says so."
)


def judge(
    found: Evaluation,
    held_out: Tensor | None,
    history: Sequence[dict[str, Any]] = (),
    moments: Moments | None = None,
) -> Verdict:
    """Turn numbers into a verdict.

    Parameters
    ----------
    found : Evaluation
    held_out : Tensor (rows,), optional
        Free energies of held-out rows, against which those of the chains are set.
    history : sequence of dict
        Records of metrics during training.
    moments : Moments, optional
        Means and covariances of samples from noise against those of held-out rows.

    Returns
    -------
    Verdict
        ``good`` only if the certificate is granted, the likelihood is known, the chains mixed and their
        samples fit held-out rows; ``bad`` if a check of the certificate failed, chains from noise and from
        data disagree, or samples do not fit; else ``doubtful``, with what would decide it.
    """
    findings: list[Finding] = []
    advice: list[str] = []
    likelihood = _likelihood(found, findings, advice)
    mixed = _mixing(found, findings, advice)
    fits = _fit(found, held_out, findings, advice)
    if moments is not None:
        fits = _moments(moments, findings, advice) and fits is not False
    certified = _certificate(found, findings, advice)
    _training(found, held_out, history, findings, advice)
    if mixed is False or fits is False or certified is False:
        status = "bad"
    elif mixed and fits and likelihood and certified:
        status = "good"
    else:
        status = "doubtful"
    headline = {
        "good": "Chains started at noise forget it, their samples are certified, and the machine's "
        "likelihood is known.",
        "doubtful": "Nothing contradicts this machine, but not everything could be confirmed.",
        "bad": "Samples from noise cannot be trusted yet.",
    }[status]
    return Verdict(status, headline, findings, advice)  # type: ignore[arg-type]


def _likelihood(found: Evaluation, findings: list[Finding], advice: list[str]) -> bool:
    z = found.partition
    first, *more = z.words() or ["No estimate of log Z was made."]
    findings.append(Finding(z.converged, first))
    whole = True if z.exact is not None or (z.bounds_agree and z.ladder_doubt is None) else None
    findings.extend(Finding(whole if z.converged else False, sentence) for sentence in more)
    if not z.converged:
        advice.append(
            "Evaluate with more temperatures (--temperatures), steps of tempering (--ladder-steps) and "
            f"mixing steps (--mixing-steps) until AIS and reverse AIS agree within {LARGEST_GAP} nat, or "
            "nothing speaks against the ladder."
        )
    return z.converged


def _certificate(found: Evaluation, findings: list[Finding], advice: list[str]) -> bool | None:
    """True: granted. False: a check failed. None: not decided, and the advice says what would."""
    certificate = found.certificate
    if certificate is None:
        findings.append(Finding(None, "There are too few rows for a certificate."))
        return None
    failed = any(c.verdict == "failed" for c in certificate.checks)
    outcome = True if certificate.granted else False if failed else None
    findings.append(Finding(outcome, certificate.words[0]))
    if certificate.decides is not None:
        advice.append(certificate.decides + _WAYS)
    if "held_out_rows" in certificate.needs:
        advice.append(_MARGIN)
    return outcome


def _mixing(found: Evaluation, findings: list[Finding], advice: list[str]) -> bool | None:
    """True: mixed. False: contradicted. None: too little was run to tell."""
    mixing = found.mixing
    different = mixing.comparison is not None and mixing.comparison.verdict == "different"
    outcome = True if mixing.mixed else False if different else None
    findings.extend(Finding(outcome, sentence) for sentence in mixing.words())
    if outcome is False:
        advice.append(
            "Train with PCD rather than CD, with more steps an update (--steps 5) or more chains, and a "
            "rate that falls to zero: otherwise regions of high probability stay that no chain visits."
        )
    if outcome is None:
        advice.append("Run more mixing steps (--mixing-steps) before judging the chains.")
    return outcome


def _fit(
    found: Evaluation, held_out: Tensor | None, findings: list[Finding], advice: list[str]
) -> bool | None:
    """Set the mean free energy of the noise-started chains' end against that of held-out rows."""
    if held_out is None or "noise" not in found.traces or len(held_out) < 2:
        return None
    energies = found.traces["noise"].after(0.5)
    spread = float(held_out.std())
    difference = float(energies.mean() - held_out.mean()) / max(spread, 1e-12)
    if not math.isfinite(difference):
        return None
    good = abs(difference) < _FAR
    findings.append(
        Finding(
            good,
            f"The mean free energy of samples from noise lies {difference:+.2f} standard deviations "
            f"from that of held-out rows ({'within' if good else 'beyond'} ±{_FAR}).",
        )
    )
    if not good:
        advice.append(
            "The machine puts its probability elsewhere than the data do: train longer, lower the "
            "learning rate, or use more persistent chains."
        )
    return good


def _moments(moments: Moments, findings: list[Finding], advice: list[str]) -> bool:
    """Say how far samples from noise are from held-out rows in means and pair covariances."""
    worst = max(moments.mean_error, moments.covariance_error)
    good = worst < _MOMENT_ERROR
    findings.append(
        Finding(
            good,
            f"Samples from noise {'have' if good else 'do not have'} the means and pair covariances of "
            f"held-out rows (relative squared errors {max(moments.mean_error, 0):.3f} and "
            f"{max(moments.covariance_error, 0):.3f}, below {_MOMENT_ERROR} asked for).",
        )
    )
    if not good:
        advice.append(
            "Look at the samples from noise beside the data: the machine has not learned what columns "
            "have in common, so train longer, with a larger learning rate or more hidden units."
        )
    return good


def _training(
    found: Evaluation,
    held_out: Tensor | None,
    history: Sequence[dict[str, Any]],
    findings: list[Finding],
    advice: list[str],
) -> None:
    """Say whether the machine overfits, and whether it was still learning when it stopped."""
    gap, overfit = found.free_energy_gap, False
    if gap is not None and held_out is not None and len(held_out) > 1:
        spread = max(float(held_out.std()), 1e-12)
        overfit = gap > max(_OVERFIT, 3 / len(held_out) ** 0.5) * spread
        findings.append(
            Finding(
                not overfit,
                f"Held-out rows lie {gap:+.2f} nats of free energy from training rows, "
                f"{'a sign of overfitting' if overfit else 'no sign of overfitting'}.",
            )
        )
        if overfit:
            advice.append(
                "Against overfitting: fewer updates, fewer hidden units, or an L2 penalty."
            )
    curve = _curve(history)
    if len(curve) >= 10:
        late = curve[-max(1, len(curve) // 10) :]
        early = curve[len(curve) // 2 : len(curve) // 2 + len(late)]
        gain = (_mean(late) - _mean(early)) / max(abs(_mean(early)), 1e-12)
        learning = gain > _STILL_LEARNING
        findings.append(
            Finding(
                None if learning else True,
                "The pseudo-likelihood was "
                f"{'still rising' if learning else 'level'} over the second half of training "
                f"({100 * gain:+.1f} %).",
            )
        )
        if learning and not overfit:
            advice.append("The fit was still improving: train longer (--updates).")


def _curve(history: Sequence[dict[str, Any]]) -> list[float]:
    values = [r.get("pseudo_likelihood") for r in history]
    tables = [v for v in values if isinstance(v, dict)]
    return [float(v["validation" if "validation" in v else "train"]) for v in tables]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
