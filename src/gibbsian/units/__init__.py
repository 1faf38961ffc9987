"""Units turn a field into a mean, a sample and a log-partition: one family a file."""

from collections.abc import Mapping
from typing import Any

from gibbsian.errors import GibbsianError
from gibbsian.units.base import Domain, Units
from gibbsian.units.bernoulli import Bernoulli, Spin
from gibbsian.units.binomial import Binomial
from gibbsian.units.gaussian import Gaussian
from gibbsian.units.mixed import Mixed
from gibbsian.units.relu import ReLU
from gibbsian.units.softmax import Softmax

__all__ = [
    "Bernoulli", "Binomial", "Domain", "Gaussian", "Mixed", "ReLU", "Softmax", "Spin", "Units",
    "from_spec", "spec",
]  # fmt: skip

_FAMILIES: dict[str, type[Units]] = {
    family.__name__: family
    for family in (Bernoulli, Binomial, Gaussian, Mixed, ReLU, Softmax, Spin)
}


def spec(units: Units) -> dict[str, Any]:
    """Return plain values from which `from_spec` rebuilds the layer (not its parameters)."""
    return {"kind": type(units).__name__, **units.config}


def from_spec(spec: Mapping[str, Any]) -> Units:
    """Build the layer that `spec` describes.

    Raises
    ------
    GibbsianError
        If the family is unknown or its settings do not fit.
    """
    settings = dict(spec)
    kind = settings.pop("kind", None)
    if kind not in _FAMILIES:
        raise GibbsianError(f"There are no units called {kind!r}; known are {sorted(_FAMILIES)}.")
    if "members" in settings:
        settings["members"] = [from_spec(m) for m in settings["members"]]
    try:
        return _FAMILIES[kind](**settings)
    except TypeError as error:
        raise GibbsianError(f"The settings of {kind} units do not fit: {error}.") from None
