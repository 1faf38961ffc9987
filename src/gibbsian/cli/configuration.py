"""How the options of `train` and a --config file become settings."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

_NUMBER, _WORD, _FLAG = (int, float), (str,), (bool,)
_PAIRS = (dict, list)

# For each option what a config file may give it.
_METHOD = {
    "steps": (int,), "chains": (int,), "refresh": _NUMBER, "fast_lr": _NUMBER, "witnesses": (int,),
    "reservoir": (int,), "acceptance": _NUMBER, "sampler": _WORD, "levels": (int,),
    "sampler_option": _PAIRS,
}  # fmt: skip
# The options that each method takes.
_TAKES = {
    "cd": ("steps",),
    "pcd": ("steps", "chains", "refresh", "sampler", "levels", "sampler_option"),
    "fpcd": ("steps", "chains", "fast_lr"),
    "jarzynski": ("steps", "chains", "witnesses"),
    "ptt": ("steps", "chains", "reservoir", "acceptance"),
}
# Those of `gibbsian.estimators.named`, which needs PyTorch.
_SAMPLERS = (
    "gibbs", "tempering", "transitions", "driven", "langevin", "gibbs-langevin", "rates",
)  # fmt: skip
_LOAD = {
    "classes": (str, int, list), "limit": (int,), "transform": (str, list), "key": _WORD,
    "labels": (str, bool), "validation": (str, int, float), "test": (str, int, float), "data_dir": _WORD,
}  # fmt: skip
_DIRECT = {
    "batch_size": (int,), "epochs": (int,), "updates": (int,), "lr": _NUMBER, "optimizer": _WORD,
    "schedule": _WORD, "l1": _NUMBER, "l2": _NUMBER, "prior_scale": _NUMBER,
    "center": _FLAG, "whiten": _NUMBER, "average": _NUMBER, "weights": _WORD,
    "seed": (int,), "device": _WORD, "threads": (int,), "log_every": (int,),
    "log_epochs": (int,), "checkpoint_every": (int,), "keep_last": (int,), "keep_every": (int,),
    "patience": (int,), "tolerance": _NUMBER, "precision": _WORD, "save_trajectory": _FLAG,
    "trajectory_limit": (int,), "pretrain": (int,), "begin": _WORD,
}  # fmt: skip
_OTHER = {
    "data": _WORD, "model": _WORD, "hidden": (int, list), "method": _WORD, "optimizer_option": _PAIRS,
    "updown_epochs": (int,), "updown_lr": _NUMBER, "updown_top_lr": _NUMBER,
    "discriminative": _NUMBER,
    "schedule_option": _PAIRS, "visible_bias": _NUMBER, "hidden_bias": _NUMBER,
}  # fmt: skip
_KNOWN = _METHOD | _LOAD | _DIRECT | _OTHER
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false",
          list: "a list of these", dict: "a table"}  # fmt: skip


def merged(path: Path | None, given: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """Merge a config file with what the command line gives, which wins.

    Returns a dict with ``data``, ``model``, ``hidden``, ``method``, ``load`` and ``settings``.

    Raises
    ------
    GibbsianError
        If no data are named, or an option is unknown or does not fit.
    """
    table = _checked(path) if path is not None else {}
    for either in ({"epochs", "updates"}, {"log_every", "log_epochs"}):
        if either & set(given):
            table = {k: v for k, v in table.items() if k not in either}
    table |= given
    if source is not None:
        table["data"] = source
    if "data" not in table:
        raise GibbsianError("Name the data to train on, such as digits or a file; see --help.")
    kind = str(table.get("method", "pcd")).lower()
    method = {k: table[k] for k in _METHOD if k in table}
    _check_method(kind, method)
    if "sampler_option" in method:
        method["sampler_options"] = _pairs(method.pop("sampler_option"), "sampler")
    return {
        "data": table["data"],
        "model": table.get("model", "rbm"),
        "hidden": _hidden(table.get("hidden")),
        "method": {"kind": kind} | method,
        "load": _load(table),
        "labels": table.get("labels", False) is not False,
        "up_down": _up_down(table),
        "settings": _settings(table),
    }


_UP_DOWN = ("updown_epochs", "updown_lr", "updown_top_lr", "discriminative")


def _up_down(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a deep belief network's up-down stage; other models have none."""
    given = [k for k in _UP_DOWN if k in table]
    if given and table.get("model") != "dbn":
        raise GibbsianError(
            f"{_flag(given[0])} is for deep belief networks; add --model dbn or leave it out."
        )
    return {k.removeprefix("updown_"): table[k] for k in given}


def _hidden(value: Any) -> Any:
    """Read the command line's text; a file's numbers are numbers already, and None asks the recipe."""
    return opt.sizes(value, "--hidden") if isinstance(value, str) else value


def _check_method(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the method does not take."""
    unfit = [k for k in options if k not in _TAKES.get(kind, options)]
    if unfit:
        flags = " and ".join(_flag(k) for k in unfit)
        others = [m for m, taken in _TAKES.items() if set(options) <= set(taken)]
        instead = f" or use --method {' or '.join(others)}" if others else ""
        raise GibbsianError(f"The method {kind} does not take {flags}; leave {flags} out{instead}.")
    if options.get("sampler", "gibbs") not in _SAMPLERS:
        more = "; --method ptt trains along one" if options["sampler"] == "trajectory" else ""
        raise GibbsianError(
            f"--sampler of train takes {', '.join(_SAMPLERS)}, not {options['sampler']!r}{more}."
        )
    if "levels" in options and options.get("sampler") not in ("tempering", "transitions"):
        raise GibbsianError(
            "--levels counts the levels of tempering or transitions; leave --levels out or add --sampler "
            "tempering."
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _load(table: Mapping[str, Any]) -> dict[str, Any]:
    load = {k: table[k] for k in _LOAD if k in table}
    if load.get("labels") in ("", True, False):
        del load["labels"]  # those that come with the data
    if isinstance(load.get("classes"), str):
        parts = [part.strip() for part in load["classes"].split(",")]
        load["classes"] = [int(p) if p.lstrip("-").isdecimal() else p for p in parts]
    if isinstance(load.get("transform"), str) and "," in load["transform"]:
        load["transform"] = [part.strip() for part in load["transform"].split(",")]
    for part in ("validation", "test"):
        if isinstance(load.get(part), str):
            load[part] = opt.amount(load[part])
    return load


def _settings(table: Mapping[str, Any]) -> dict[str, Any]:
    settings = {k: table[k] for k in _DIRECT if k in table}
    if "trajectory_limit" in table and not table.get("save_trajectory"):
        raise GibbsianError("--trajectory-limit bounds what --save-trajectory keeps; give both.")
    for kind in ("optimizer", "schedule"):
        value = table.get(f"{kind}_option")
        if value:
            pairs = _pairs(value, kind)
            if kind == "schedule":
                _check_numbers(pairs)
            settings[f"{kind}_options"] = pairs
    biases = {
        layer: table[name]
        for layer, name in (("0", "visible_bias"), ("1", "hidden_bias"))
        if name in table
    }
    return settings | ({"biases": biases} if biases else {})


def _pairs(value: Any, kind: str) -> Any:
    """Read the command line's pairs of a setting's options; a file's table is one already."""
    example = "size=0.05" if kind == "sampler" else "momentum=0.9"
    return value if isinstance(value, dict) else opt.table(value, f"--{kind}-option", example)


def _check_numbers(pairs: Mapping[str, Any]) -> None:
    for name, value in pairs.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise GibbsianError(
                f"--schedule-option takes numbers such as hold=0.2, not {name}={value!r}."
            )


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    GibbsianError
        If it cannot be read, or is no valid TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise GibbsianError(f"The config file {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # TOML's own error and a bad encoding are both one
        raise GibbsianError(f"The config file {path} is no valid TOML: {error}.") from None


def is_run(table: Mapping[str, Any]) -> bool:
    """Tell whether a table is the ``config.toml`` of a run, and not a file of options."""
    return all(isinstance(table.get(k), dict) for k in ("machine", "data", "method", "training"))


def _checked(path: Path) -> dict[str, Any]:
    """Read a file of options, with names and types as the command line has them."""
    table = {k.replace("-", "_"): v for k, v in read(path).items()}
    for name, value in table.items():
        if name not in _KNOWN:
            raise GibbsianError(
                f"The config file {path} has the unknown option {name!r}; options are named as on "
                "the command line, such as batch-size."
            )
        kinds = _KNOWN[name]
        if not _fits(value, kinds):
            wanted = " or ".join(_WORDS[k] for k in kinds if k is not int or float not in kinds)
            raise GibbsianError(
                f"The config file {path} gives {name} = {value!r}, which must be {wanted}."
            )
    return table


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """Tell whether a value is of one of these kinds; what a list holds, of one of the others."""
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, list):
        single = tuple(set(kinds) - {list, dict}) or (str,)
        return list in kinds and all(_fits(v, single) for v in value)
    return isinstance(value, kinds)
