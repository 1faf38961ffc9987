"""What a comparison is: data, models and how each is trained, what is drawn, and how it is judged."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from gibbsian import estimators, recipes, settings
from gibbsian.arguments import number, whole
from gibbsian.errors import GibbsianError

_TOP = ("title", "seed", "data", "defaults", "models", "figures", "evaluation", "on")
_ON = ("title", "defaults", "models", "figures", "evaluation")
_MODEL = ("label", "model", "hidden", "method")
# Of each setting of the data: the types of a single value, those in a list, and both in words.
_DATA: dict[str, tuple[tuple[type, ...], tuple[type, ...], str]] = {
    "source": ((str,), (), "a text"),
    "key": ((str,), (), "a text"),
    "labels": ((str,), (), "a text"),
    "classes": ((int, str), (int, str), "a label or a list of labels"),
    "limit": ((int,), (), "a whole number"),
    "transform": ((str,), (str,), "a text or a list of texts"),
    "validation": ((int, float, str), (), "a share, a number of rows, or a file"),
    "test": ((int, float, str), (), "a share, a number of rows, or a file"),
    "data_dir": ((str,), (), "a text"),
    "image_shape": ((), (int,), "a list of whole numbers"),
}
_ROWS = ("Data", "Noisy")  # of the pictures, beside those of the models
# The least that a smaller comparison shrinks each of these to.
_EVALUATION = {
    "chains": 2, "temperatures": 1, "mixing_steps": 16, "ladder_steps": 0, "drift_steps": 2, "rows": 1,
}  # fmt: skip
_SCALED = ("temperatures", "mixing_steps", "ladder_steps", "drift_steps")
_LEAST = 16


@dataclass(frozen=True)
class Figures:
    """What the pictures show.

    Attributes
    ----------
    columns : int
        Rows of data, reconstructions and fantasy particles beside each other.
    fantasy_steps : int
        Steps of the chains whose ends are the fantasy particles.
    std, momentum : float
        Of the inverse temperature that drives them: see `gibbsian.samplers.Driven`. Its spread falls to 0
        over the first 80 % of the steps.
    flip : float
        Fraction of the entries damaged before denoising.
    denoising_rows, denoising_steps : int
        Held-out rows that are damaged, and steps of the chains that restore them.
    features : int
        Features drawn of each layer.
    """

    columns: int = 8
    fantasy_steps: int = 1000
    std: float = 0.6
    momentum: float = 0.9
    flip: float = 0.15
    denoising_rows: int = 2000
    denoising_steps: int = 100
    features: int = 25

    def __post_init__(self) -> None:
        """Refuse impossible values, in one sentence."""
        for name, kind in Figures.__annotations__.items():
            what = f"The figures' {name}"
            if kind is int:
                whole(getattr(self, name), what)
            elif not 0 <= number(getattr(self, name), what) <= 1:
                raise GibbsianError(f"{what} lies from 0 to 1, not at {getattr(self, name)!r}.")


@dataclass(frozen=True)
class Model:
    """One of the machines to compare.

    Attributes
    ----------
    name : str
        Of its run folder.
    label : str
        In tables and figures.
    kind : str
        Of `gibbsian.recipes`.
    hidden : int or list of int, optional
        Units of each hidden layer; what suits the model unless given.
    method : dict
        As `gibbsian.estimators.from_spec` takes it.
    settings : dict
        Fields of `gibbsian.settings.Settings`.
    """

    name: str
    label: str
    kind: str
    hidden: int | list[int] | None
    method: dict[str, Any]
    settings: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the table of a configuration that says the same."""
        own = {
            "label": self.label,
            "model": self.kind,
            "hidden": self.hidden,
            "method": self.method,
        }
        return own | self.settings


@dataclass(frozen=True)
class Plan:
    """A whole comparison; `read` and `preset` make one.

    Attributes
    ----------
    title : str
    seed : int
        Of everything: training, chains, and which entries are damaged.
    data : dict
        What `gibbsian.data.load` takes.
    models : tuple of Model
    figures : Figures
    evaluation : dict
        Options of `gibbsian.evaluate`.
    """

    title: str
    seed: int
    data: dict[str, Any]
    models: tuple[Model, ...]
    figures: Figures = field(default_factory=Figures)
    evaluation: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values of a configuration file that says the same."""
        return {
            "title": self.title, "seed": self.seed, "data": self.data,
            "models": {m.name: m.as_dict() for m in self.models},
            "figures": asdict(self.figures), "evaluation": self.evaluation,
        }  # fmt: skip

    def scaled(self, factor: float) -> "Plan":
        """Return a shorter or longer comparison.

        Updates, epochs, and the evaluation's temperatures and steps are multiplied by `factor`, and none but
        epochs falls below 16 or what it is.

        Raises
        ------
        GibbsianError
            If the factor is not positive.
        """
        if number(factor, "The scale of a comparison") <= 0:
            raise GibbsianError(f"The scale of a comparison must be positive, not {factor!r}.")

        def times(table: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
            return {
                k: max(min(_LEAST, v), round(v * factor)) if k in names and v else v
                for k, v in table.items()
            }

        models = []
        for m in self.models:
            shorter = times(m.settings, ("updates",))
            for name in ("epochs", "pretrain"):
                if shorter.get(name):
                    shorter[name] = max(1, round(shorter[name] * factor))
            models.append(replace(m, settings=shorter))
        return replace(self, models=tuple(models), evaluation=times(self.evaluation, _SCALED))


def presets() -> list[str]:
    """Return the names of the comparisons that come with the package."""
    found = files("gibbsian.comparison").joinpath("presets").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in found if f.name.endswith(".toml"))


def preset(name: str, data: str | None = None, data_dir: str | None = None) -> Plan:
    """Return a comparison that comes with the package, on its own data or on others.

    Raises
    ------
    GibbsianError
        If there is none of this name.
    """
    if name not in presets():
        raise GibbsianError(f"There is no preset {name!r}; known are {', '.join(presets())}.")
    text = files("gibbsian.comparison").joinpath("presets", f"{name}.toml").read_text("utf-8")
    return parse(tomllib.loads(text), f"The preset {name}", data, data_dir)


def read(path: str | Path, data: str | None = None, data_dir: str | None = None) -> Plan:
    """Read a comparison from a TOML file; `data` and `data_dir` are those of `parse`.

    Raises
    ------
    GibbsianError
        If it cannot be read, or something in it is unknown or impossible.
    """
    if Path(path).is_dir():
        raise GibbsianError(
            f"{path} is a folder, and a comparison is read from a TOML file; to go on with one that is kept "
            f"in it, give --resume --out {path}."
        )
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise GibbsianError(f"The config file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise GibbsianError(f"The config file {path} is no text in UTF-8.") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise GibbsianError(f"The config file {path} is no valid TOML: {error}.") from None
    return parse(table, f"The config file {path}", data, data_dir)


def parse(
    table: Mapping[str, Any], where: str = "The comparison", data: str | None = None,
    data_dir: str | None = None,
) -> Plan:  # fmt: skip
    """Make a comparison of the plain values of a configuration.

    Parameters
    ----------
    table : mapping
        As a TOML file has it.
    where : str
        Begins the sentence of an error.
    data : str, optional
        A named set or a file in place of the configuration's data. What its table ``[on.NAME]`` says of
        them wins over its other tables.
    data_dir : str, optional
        Folder of the named sets.

    Raises
    ------
    GibbsianError
        If something in it is unknown or impossible.
    """
    _check_tables(table, where)
    table = _on(table, data, data_dir, where)
    models = table.get("models")
    if not models:
        raise GibbsianError(f"{where} names no models; give each a table such as [models.rbm].")
    rows = dict(table["data"])
    _check_data(rows, where)
    drawn = dict(table.get("figures", {}))
    _check_names(drawn, [f.name for f in fields(Figures)], where, "setting of the figures")
    judged = dict(table.get("evaluation", {}))
    _check_names(judged, list(_EVALUATION), where, "setting of the evaluation")
    for name, value in judged.items():
        whole(value, f"The evaluation's {name}", _EVALUATION[name])
    seed, title = whole(table.get("seed", 0), "The seed of a comparison", 0), table.get("title")
    defaults = table.get("defaults", {})
    found = tuple(_model(name, t, defaults, seed, where) for name, t in models.items())
    _check_labels(found, where)
    title = str(title or f"{len(found)} Boltzmann machines compared")
    return Plan(title, seed, rows, found, Figures(**drawn), judged)


def _check_tables(table: Mapping[str, Any], where: str) -> None:
    _check_names(table, _TOP, where, "part")
    for name in sorted(set(_TOP) - {"title", "seed"}):
        if not isinstance(table.get(name, {}), Mapping):
            raise GibbsianError(
                f"{where} gives {name} = {table[name]!r}; it must be a table [{name}]."
            )


def _check_data(rows: Mapping[str, Any], where: str) -> None:
    _check_names(rows, list(_DATA), where, "setting of the data")
    if "source" not in rows:
        raise GibbsianError(f'{where} names no data; give source = "digits" in its table [data].')
    for name, value in rows.items():
        single, listed, words = _DATA[name]
        several = isinstance(value, list | tuple)
        kinds, parts = (listed, value) if several else (single, [value])
        if not all(isinstance(v, kinds) and not isinstance(v, bool) for v in parts) or (
            several and not listed
        ):
            raise GibbsianError(f"{where} gives {name} = {value!r} in [data]; it must be {words}.")


def _check_labels(models: Sequence[Model], where: str) -> None:
    """Refuse labels that would take each other's place in the pictures."""
    seen: set[str] = set(_ROWS)
    for m in models:
        if m.label in seen:
            raise GibbsianError(
                f"{where} labels the model {m.name} {m.label!r}, which names another row of the pictures; "
                "give each model a label of its own."
            )
        seen.add(m.label)


def _on(
    table: Mapping[str, Any], data: str | None, data_dir: str | None, where: str
) -> dict[str, Any]:
    """Put other data, and what is said of them, into a configuration."""
    found, own, models = dict(table), dict(table.get("data", {})), table.get("models", {})
    for name, part in table.get("on", {}).items():
        if not isinstance(part, Mapping):
            raise GibbsianError(f"{where} gives {part!r} for the data {name}; it must be a table.")
        _check_names(part, _ON, where, f"part of [on.{name}]")
        if isinstance(part.get("models"), Mapping):
            _check_names(part["models"], list(models), where, f"model of [on.{name}]")
    if data is not None:
        own = {k: v for k, v in own.items() if k == "transform"} | {"source": data}
        part = table.get("on", {}).get(data, {"title": f"{table.get('title', '')}: {data}"})
        for name, value in part.items():
            if name == "models" and isinstance(value, Mapping):
                value = {k: _joined(models[k], v) for k, v in value.items()}
            found[name] = _joined(table.get(name, {}), value)
        _check_tables(found, where)
    if data_dir is not None:
        own["data_dir"] = data_dir
    return found | {"data": own}


def _joined(below: Any, above: Any) -> Any:
    """Return a table with another's entries over its own; anything else is replaced."""
    both = isinstance(below, Mapping) and isinstance(above, Mapping)
    return {**below, **above} if both else above


def _check_names(table: Mapping[str, Any], known: Sequence[str], where: str, what: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise GibbsianError(
            f"{where} has the unknown {what} {unknown[0]!r}; known are {', '.join(known)}."
        )


def _model(name: str, table: Any, defaults: Mapping[str, Any], seed: int, where: str) -> Model:
    """Check one model's table over the defaults; every setting of it is looked at before any training."""
    if not isinstance(table, Mapping):
        raise GibbsianError(f"{where} gives the model {name} as {table!r}; it must be a table.")
    if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise GibbsianError(
            f"{where} calls a model {name!r}, which cannot be a folder's name; use letters, digits and "
            "hyphens."
        )
    both = {**defaults, **table}
    kind = both.get("model", "rbm")
    if not isinstance(kind, str):
        raise GibbsianError(f"{where} gives the model {name} the kind {kind!r}, which is no text.")
    if kind == "dbn":
        raise GibbsianError(
            f"{where}: the model {name} is a deep belief network, which is several machines and cannot be "
            "compared; take a dbm, or evaluate its run by itself."
        )
    recipe = recipes.find(kind)
    method = {"kind": "pcd"} | _method(defaults, where) | _method(table, where)
    if method["kind"] == "pcd":
        method = dict(recipe.method) | method
    estimators.from_spec(method)
    rest = {k: v for k, v in both.items() if k not in _MODEL}
    chosen = {"seed": seed} | recipes.settings(recipe, rest)
    try:
        settings.from_dict(chosen)
    except GibbsianError as error:
        raise GibbsianError(f"{where}, model {name}: {error}") from None
    return Model(
        name,
        str(both.get("label", name)),
        kind,
        _hidden(both.get("hidden"), name),
        method,
        chosen,
    )


def _method(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a table's method; a word stands for a method with its usual settings."""
    value = table.get("method", {})
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, Mapping):
        raise GibbsianError(
            f'{where} gives method = {value!r}; it must be a word such as "pcd" or a table.'
        )
    return dict(value)


def _hidden(value: Any, name: str) -> int | list[int] | None:
    what = f"The number of hidden units of {name}"
    if value is None:
        return None
    if isinstance(value, list):
        return [whole(v, what) for v in value]
    return whole(value, what)
