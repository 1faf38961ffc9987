"""How the options of `train` and a --config file become settings."""

import tomllib
from pathlib import Path
from typing import Any

from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

_METHOD = ("steps", "chains", "refresh")
_LOAD = ("classes", "limit", "transform", "key", "labels", "validation", "test", "data_dir")
_DIRECT = ("batch_size", "epochs", "updates", "lr", "optimizer", "schedule", "l1", "l2", "center",
           "average", "weights", "seed", "device", "threads", "log_every", "checkpoint_every",
           "keep_last", "keep_every", "patience", "tolerance")  # fmt: skip
_OTHER = ("data", "model", "hidden", "method", "optimizer_option", "schedule_option",
          "visible_bias", "hidden_bias")  # fmt: skip


def merged(path: Path | None, given: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Merge a config file with what the command line gives, which wins.

    Returns a dict with ``data``, ``model``, ``hidden``, ``method``, ``load`` and ``settings``.

    Raises
    ------
    GibbsianError
        If no data are named, or an option is unknown or does not fit.
    """
    table = _read(path) if path is not None else {}
    if {"epochs", "updates"} & set(given):
        table = {k: v for k, v in table.items() if k not in ("epochs", "updates")}
    table |= given
    if source is not None:
        table["data"] = source
    if "data" not in table:
        raise GibbsianError("Name the data to train on, such as digits or a file; see --help.")
    kind = str(table.get("method", "pcd")).lower()
    method = {"kind": kind} | {k: table[k] for k in _METHOD if k in table}
    if kind == "cd" and len(method.keys() & {"chains", "refresh"}):
        raise GibbsianError(
            "CD has no persistent chains; leave --chains and --refresh out or use --method pcd."
        )
    return {
        "data": table["data"],
        "model": table.get("model", "rbm"),
        "hidden": table.get("hidden", 500),
        "method": method,
        "load": _load(table),
        "settings": _settings(table),
    }


def _load(table: dict[str, Any]) -> dict[str, Any]:
    load = {k: table[k] for k in _LOAD if k in table}
    if isinstance(load.get("classes"), str | int):
        parts = str(load["classes"]).split(",")
        load["classes"] = [int(p) if p.strip().lstrip("-").isdigit() else p.strip() for p in parts]
    if isinstance(load.get("transform"), str) and "," in load["transform"]:
        load["transform"] = [part.strip() for part in load["transform"].split(",")]
    for part in ("validation", "test"):
        if isinstance(load.get(part), str):
            load[part] = opt.amount(load[part], f"--{part}")
    return load


def _settings(table: dict[str, Any]) -> dict[str, Any]:
    settings = {k: table[k] for k in _DIRECT if k in table}
    for kind in ("optimizer", "schedule"):
        value = table.get(f"{kind}_option")
        if value:
            pairs = value if isinstance(value, dict) else opt.table(value, f"--{kind}-option")
            settings[f"{kind}_options"] = pairs
    biases = {
        layer: table[name]
        for layer, name in (("0", "visible_bias"), ("1", "hidden_bias"))
        if name in table
    }
    return settings | ({"biases": biases} if biases else {})


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise GibbsianError(f"The config file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GibbsianError(f"The config file {path} is no valid TOML: {error}.") from None
    table = {k.replace("-", "_"): v for k, v in table.items()}
    unknown = sorted(set(table) - set(_METHOD + _LOAD + _DIRECT + _OTHER))
    if unknown:
        raise GibbsianError(
            f"The config file {path} has the unknown option {unknown[0]!r}; options are named as on the "
            "command line, such as batch-size."
        )
    return table
