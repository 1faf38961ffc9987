"""What is known of log Z, by several estimates, and which of them to believe."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gibbsian.errors import GibbsianError
from gibbsian.estimators.online import OnlineLogZ
from gibbsian.evaluators.ais import Estimate
from gibbsian.evaluators.bridge import Z95, Ladder

# Two bounds further apart than this, in nats, do not say what log Z is.
LARGEST_GAP = 0.5
# An estimate that rests on fewer effective chains than this has no error bar worth the name.
LOWEST_ESS = 10.0
_SURE = 3.0  # standard errors
# Estimates on fewer effective chains than `LOWEST_ESS` contradict others by `LARGEST_GAP`, others by this.
_APART = 0.1
_Source = Estimate | Ladder | OnlineLogZ | None
_LADDERS = ("ladder", "trajectory")
_CURES = {
    "ladder": "more steps of tempering, or more temperatures",
    "trajectory": "more steps, or train with --method ptt",
}


@dataclass(frozen=True)
class Belief:
    """The estimate of log Z to believe.

    Attributes
    ----------
    name : {"exact", "ladder", "trajectory", "ais"}
        "ais" stands for AIS and reverse AIS where they agree.
    value, low, high : float
        log Z in nats, and a 95 % interval; for a pair of bounds, the outer ends of both intervals.
    """

    name: str
    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Partition:
    """What is known of a machine's log Z.

    Attributes
    ----------
    exact : float or None
        By enumeration, where the machine is small enough.
    ais : Estimate or None
        Forward: a lower bound on average, so an optimistic likelihood.
    reverse : mapping of str to Estimate
        Reverse, from "data"- and from "noise"-started chains and from the top of the "ladder": upper
        bounds on average, conditional on these chains being at equilibrium.
    equilibration : int or None
        Gibbs steps that the chains from data and from noise had made before.
    ladder : Ladder or None
        Tempering, and a bridge on each of its rungs.
    trajectory : Ladder or None
        The same along machines that training passed.
    online : OnlineLogZ or None
        What training itself carried along. Its error leaves much out, so it is set beside the others only.
    """

    exact: float | None
    ais: Estimate | None
    reverse: Mapping[str, Estimate]
    equilibration: int | None = None
    ladder: Ladder | None = None
    trajectory: Ladder | None = None
    online: OnlineLogZ | None = None

    @property
    def believed(self) -> Belief | None:
        """The estimate to believe: exact, else a ladder without doubts, else bounds that agree, else None.

        Of two ladders without doubts, one of temperatures and one of machines, that of the smaller error.
        """
        if self.exact is not None:
            return Belief("exact", self.exact, self.exact, self.exact)
        firm = {k: x for k, x in self._ladders.items() if self._doubt(k) is None}
        if firm:
            name = min(firm, key=lambda k: firm[k].standard_error)
            return Belief(name, firm[name].log_z, firm[name].low, self._reach(firm[name]))
        if self.ais is None or not self.bounds_agree:
            return None
        ends = [self.ais, *self.reverse.values()]
        return Belief("ais", self.ais.log_z, min(e.low for e in ends), max(e.high for e in ends))

    @property
    def _ladders(self) -> dict[str, Ladder]:
        both = {"ladder": self.ladder, "trajectory": self.trajectory}
        return {k: x for k, x in both.items() if x is not None}

    def _reach(self, ladder: Ladder) -> float:
        """Return the upper end of a ladder's interval, no lower than AIS, which bounds log Z from below.

        Chains that climb from the reference and have not yet mixed err downwards, too, and few round trips
        make their errors too small.
        """
        firm = self.ais is not None and self.ais.ess >= LOWEST_ESS
        return max(ladder.high, self.ais.log_z) if firm and self.ais else ladder.high

    @property
    def log_z(self) -> float:
        """The value to use where one is needed: the one to believe, or forward AIS if there is none."""
        believed = self.believed
        if believed is not None:
            return believed.value
        if self.ais is None:
            raise GibbsianError("No estimate of log Z was made; ask for the exact one or for AIS.")
        return self.ais.log_z

    @property
    def standard_error(self) -> float | None:
        """Standard error of `log_z`: 0 where it is exact, None where there is no estimate."""
        if self.exact is not None:
            return 0.0
        believed = self.believed
        source = None if believed is None else self._ladders.get(believed.name)
        source = source or self.ais
        return None if source is None else source.standard_error

    @property
    def gaps(self) -> dict[str, float]:
        """Upper minus lower bound on log Z in nats, for each kind of start of the reverse chains."""
        if self.ais is None:
            return {}
        return {k: e.log_z - self.ais.log_z for k, e in self.reverse.items()}

    @property
    def converged(self) -> bool:
        """Whether there is an estimate of log Z to believe."""
        return self.believed is not None

    @property
    def bounds_agree(self) -> bool:
        """Whether AIS and reverse AIS were run and nothing speaks against the pair."""
        return self.ais is not None and not self._doubts()

    @property
    def ladder_doubt(self) -> str | None:
        """Say in a sentence why not to believe the ladder; None where nothing speaks against it.

        Besides its own doubts: an interval too wide to be of use, estimates by AIS on the side of it where
        they cannot be, another ladder or training itself well above it, and reverse AIS that comes out higher
        from other chains than from the ladder's top, all else being equal: a mode that starts lack makes it
        lower. All tell of a mode that was missed.
        """
        return self._doubt("ladder")

    @property
    def trajectory_doubt(self) -> str | None:
        """Say in a sentence why not to believe the trajectory's log Z, as `ladder_doubt` does."""
        return self._doubt("trajectory")

    def _doubt(self, name: str) -> str | None:
        ladder = self._ladders.get(name)
        if ladder is None:
            return None
        return _own_doubt(ladder) or self._missing(name, ladder)

    def _missing(self, name: str, ladder: Ladder) -> str | None:
        """Say what speaks for a part of the distribution that a ladder has not found."""
        top = self.reverse.get(name)
        pairs: list[tuple[str, _Source, str, _Source, int]]
        pairs = [("AIS", self.ais, f"above the {name}", ladder, 1)]
        pairs.append(("Reverse AIS from its top", top, f"below the {name}", ladder, -1))
        for k, e in self.reverse.items():
            if k not in _LADDERS:
                pairs.append(
                    (f"Reverse AIS from {k}-started chains", e, "above that from its top", top, 1)
                )
        for k, other in self._ladders.items():
            if k != name and _own_doubt(other) is None:
                pairs.append((f"The {k}", other, f"above the {name}", ladder, 1))
        pairs.append(("log Z of its training", self.online, f"above the {name}", ladder, 1))
        for what, a, where, b, side in pairs:
            if a is None or b is None:
                continue
            off = side * (a.log_z - b.log_z)
            error = math.hypot(a.standard_error, b.standard_error)
            if off > max(_APART if _firm(a) and _firm(b) else LARGEST_GAP, _SURE * error):
                return (
                    f"{what} lies {off:.2f} nats {where}, so the {name} misses a part of the distribution; "
                    f"give {_CURES[name]}."
                )
        return None

    def words(self) -> list[str]:
        """Say in plain sentences which estimate to believe, and why."""
        return [*self._main_words(), *self._other_words()]

    def _other_words(self) -> list[str]:
        """Say what ladders and training tell of log Z, where others are believed."""
        believed, found = self.believed, []
        for k, x in self._ladders.items():
            if believed is not None and believed.name != k and self._doubt(k) is None:
                found.append(
                    f"The {k} gives log Z {x.log_z:.2f} ({x.low:.2f} to {x.high:.2f}) as well."
                )
        if self.online is not None:
            o = self.online
            found.append(
                f"Beside these, {o.source} put log Z at {o.log_z:.2f} ± {Z95 * o.standard_error:.2f}, on "
                f"{o.ess:.0f} effective samples, with errors of the whole way that this need not hold."
            )
        return found

    def _main_words(self) -> list[str]:
        believed = self.believed
        if self.exact is not None:
            return ["log Z is exact, by enumeration, so the bounds serve for comparison only."]
        if believed is not None and believed.name in _LADDERS:
            ladder = self._ladders[believed.name]
            doubts = {k: self._doubt(k) for k in self._ladders if k != believed.name}
            return [
                _of_ladder(ladder, believed),
                *(f"The {k} is doubted: {_lower(d)}" for k, d in doubts.items() if d is not None),
                *self._beside(),
            ]
        doubts = {k: self._doubt(k) for k in self._ladders}
        no_ladder = [
            f"Not converged: the {k} is doubted: {_lower(d)}"
            for k, d in doubts.items()
            if d is not None
        ]
        if self.ais is None:
            return no_ladder
        if believed is None:
            return [f"Not converged: {d}" for d in self._doubts()] + no_ladder
        widest = max((abs(g) for g in self.gaps.values()), default=0.0)
        fewest = min(e.ess for e in (self.ais, *self.reverse.values()))
        pair = (
            "Converged, on condition that the reverse chains started at equilibrium: the bounds on "
            f"log Z lie within {widest:.2f} nat of each other, on at least {fewest:.0f} effective "
            f"chains of {self.ais.chains}."
        )
        return [
            pair,
            *(
                f"Believe these bounds, not the {k}: {_lower(d)}"
                for k, d in doubts.items()
                if d is not None
            ),
        ]

    def _beside(self) -> list[str]:
        """Say what AIS and reverse AIS tell where the ladder is believed."""
        if self.ais is None:
            return []
        ends = [self.ais.log_z, *(e.log_z for e in self.reverse.values())]
        if self._doubts():
            return [
                f"Beside the ladder, AIS and reverse AIS give log Z from {min(ends):.2f} to {max(ends):.2f} "
                "and are not converged, so they bound it loosely."
            ]
        return [
            f"AIS and reverse AIS agree with each other, from {min(ends):.2f} to {max(ends):.2f}."
        ]

    def _doubts(self) -> list[str]:
        forward, found = self.ais, []
        if forward is None:
            return found
        for k, gap in self.gaps.items():
            error = math.hypot(self.reverse[k].standard_error, forward.standard_error)
            if gap > LARGEST_GAP:
                found.append(
                    f"AIS and reverse AIS from {k}-started chains differ by {gap:.2f} nats (more than "
                    f"{LARGEST_GAP}); use more temperatures, and longer chains before."
                )
            elif gap < -LARGEST_GAP and gap < -_SURE * error:
                found.append(
                    f"reverse AIS from {k}-started chains lies {-gap:.2f} nats on the wrong side of "
                    "AIS, so these chains were not at equilibrium; run them longer before."
                )
            elif gap < -LARGEST_GAP:
                found.append(
                    f"AIS and reverse AIS from {k}-started chains crossed by {-gap:.2f} nats, with a "
                    f"standard error of {error:.2f}; use more temperatures or more chains."
                )
        named = {"AIS": forward} | {f"reverse AIS from {k}": e for k, e in self.reverse.items()}
        for k, e in named.items():
            if e.ess < min(LOWEST_ESS, e.chains / 2):
                found.append(
                    f"{k} rests on {e.ess:.1f} effective chains of {e.chains}; use more temperatures."
                )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        believed, ladder, way = self.believed, self.ladder, self.trajectory
        out: dict[str, Any] = {
            "exact": self.exact,
            "believed": believed.as_dict() if believed else None,
            "ais": self.ais.as_dict() if self.ais else None,
            "ladder": ladder.as_dict() | {"doubt": self.ladder_doubt} if ladder else None,
            "trajectory": way.as_dict() | {"doubt": self.trajectory_doubt} if way else None,
            "online": self.online.as_dict() if self.online else None,
            "converged": self.converged,
            "equilibration_steps": self.equilibration,
        }
        return out | {f"reverse_ais_{k}": e.as_dict() for k, e in self.reverse.items()}


def _own_doubt(ladder: Ladder) -> str | None:
    """Say why a ladder by itself is not to be believed: it was not climbed, or its interval is of no use."""
    if ladder.doubt is not None:
        return ladder.doubt
    if not ladder.high - ladder.low <= 2 * LARGEST_GAP:
        return (
            f"Its 95 % interval is {ladder.high - ladder.low:.2f} nats wide; give more steps of "
            "tempering."
        )
    return None


def _firm(source: Estimate | Ladder | OnlineLogZ) -> bool:
    """Return whether an error bar is worth its name."""
    if isinstance(source, OnlineLogZ):
        return False
    return isinstance(source, Ladder) or source.ess >= LOWEST_ESS


def _of_ladder(ladder: Ladder, believed: Belief) -> str:
    reach = " (stretched to AIS, a lower bound)" if believed.high > ladder.high else ""
    return (
        f"Converged: believe the {believed.name}, which gives log Z {ladder.log_z:.2f}, with a 95 % interval "
        f"from {believed.low:.2f} to {believed.high:.2f}{reach}, since its {ladder.chains} chains made "
        f"{ladder.round_trips:,} round trips and at least {float(ladder.acceptance.min()):.0%} of the swaps "
        "on each rung were accepted."
    )


def _lower(sentence: str | None) -> str:
    """Return a sentence so that it goes on after a colon; names in capitals stay."""
    text = sentence or ""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
