"""What train, sample and evaluate do with deep belief networks."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gibbsian.cli import options as opt
from gibbsian.errors import GibbsianError

if TYPE_CHECKING:
    from torch import Tensor

    from gibbsian.belief.runs import Belief
    from gibbsian.data import Dataset

HIDDEN = (500, 500, 2000)


def train(chosen: Mapping[str, Any], out: Path, overwrite: bool, how: Mapping[str, Any]) -> None:
    """Train as the merged options of `gibbsian train` say."""
    from gibbsian import estimators, recipes
    from gibbsian.belief import runs as belief_runs

    settings = dict(chosen["settings"])
    dataset = recipes.load_data(
        recipes.find("rbm"), chosen["data"], seed=settings.get("seed", 0), **chosen["load"]
    )
    hidden = chosen["hidden"] or HIDDEN
    found = belief_runs.train(
        dataset, list(hidden) if isinstance(hidden, Sequence) else [hidden],
        labels=chosen["labels"], method=estimators.from_spec(chosen["method"]),
        up_down=_up_down(chosen["up_down"], settings), out=out, overwrite=overwrite,
        progress=how["progress"], tell=_tell(how), **settings,
    )  # fmt: skip
    _done(found, out)


def _up_down(given: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Return the settings of the up-down stage, or None where it has no epochs."""
    from gibbsian.belief import updown

    chosen = dict(given)
    if chosen.get("epochs") == 0:
        return None
    for name in ("seed", "batch_size", "precision"):
        if name in settings:
            chosen[name] = settings[name]
    return updown.Settings(**chosen)


def resume(out: Path, how: Mapping[str, Any]) -> None:
    """Go on with a run at its stage."""
    from gibbsian.belief import runs as belief_runs

    if how.get("checkpoint", "latest") != "latest":
        raise GibbsianError(
            f"The run in {out} has stages, each with its own checkpoints; resume it without --checkpoint."
        )
    _done(belief_runs.resume(out, progress=how["progress"], tell=_tell(how)), out)


def repeat(stored: Mapping[str, Any], out: Path, overwrite: bool, how: Mapping[str, Any]) -> None:
    """Train anew with the configuration of another run."""
    from gibbsian.belief import runs as belief_runs

    found = belief_runs.repeat(
        stored, out, overwrite=overwrite, progress=how["progress"], tell=_tell(how)
    )
    _done(found, out)


def _tell(how: Mapping[str, Any]) -> Any:
    if how.get("tensorboard"):
        raise GibbsianError(
            "--tensorboard follows the training of one machine, and a deep belief network has several; leave "
            "it out."
        )
    return None if how.get("quiet") else typer.echo


def _done(found: "Belief", out: Path) -> None:
    sizes = "-".join(map(str, found.network.sizes))
    typer.echo(f"Trained a deep belief network of {sizes} units; the run is in {out}.")
    typer.echo(f"Next: gibbsian evaluate {out}, gibbsian sample {out}, gibbsian finetune {out}")


def codes(text: str, found: "Belief") -> list[int]:
    """Read classes, by number or name, several with commas between them.

    Raises
    ------
    GibbsianError
        If a part is neither, or the run has no classes.
    """
    names = found.config["network"].get("label_names", [])
    if not found.network.classes:
        raise GibbsianError(
            "The run was trained without labels, so there is no class to hold; leave --class out, or train "
            "one with --labels."
        )
    out = []
    for part in (p.strip() for p in text.split(",")):
        if part in names:
            out.append(names.index(part))
        elif re.fullmatch(r"-?[0-9]{1,18}", part):
            out.append(int(part))
        else:
            known = ", ".join(names) or ", ".join(map(str, found.network.classes))
            raise GibbsianError(
                f"--class takes a class of the run, not {part!r}; these are {known}."
            )
    return out


def sample(
    path: Path, n: int, steps: int, start: str, label: str | None, means: bool, seed: int, out: Path
) -> None:
    """Sample a network: its top machine's chain, then one pass down."""
    import io

    import numpy as np
    import torch

    from gibbsian import checkpoint, plots
    from gibbsian.belief import runs as belief_runs

    opt.output_file(out, ".npz", ".png")
    found = belief_runs.load(path)
    network = found.network
    opt.check_memory(network.top, n, "-n")
    held = None if label is None else codes(label, found)
    if held is not None and len(held) > n:
        raise GibbsianError(
            f"-n {n} samples cannot show {len(held)} classes; ask for {len(held)} samples or more."
        )
    wanted = [] if held is None else [held[i * len(held) // n] for i in range(n)]
    source = torch.Generator().manual_seed(seed)
    rows = None if start == "noise" else _start_rows(found, start, seed)
    begin = "data" if start == "test" else start
    made = network.generate(
        n, steps, label=wanted or None, start=begin, generator=source, data=rows
    )
    if out.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        labels: dict[str, Any] = {} if made.labels is None else {"labels": made.labels.numpy()}
        original = found.data.transform.inverse(made.samples).numpy()
        np.savez(
            buffer,
            samples=made.samples.numpy(),
            means=made.means.numpy(),
            original=original,
            **labels,
        )
        checkpoint.publish({out: buffer.getvalue()})
    else:
        if found.data.image_shape is None:
            raise GibbsianError(
                "The data are no images, so there is no picture; write a .npz file."
            )
        pictures = found.data.to_images(made.means if means else made.samples)
        rows, shape = pictures.reshape(n, -1), pictures.shape[1:]
        if held is not None and len(set(held)) > 1:
            plots.save(plots.classes(_by_class(rows, wanted, found), shape), out)
        else:
            plots.save_images(rows, shape, out)
    what = "conditional means" if means and out.suffix.lower() == ".png" else "samples"
    held_words = "" if label is None else f" of class {label}"
    typer.echo(
        f"Wrote {n} {what}{held_words} after {steps} steps of the top machine from {start} to {out}."
    )


def _by_class(rows: Any, labels: Sequence[int], found: "Belief") -> dict[str, Any]:
    """Part samples by the class that they were held at, in the order in which these were asked for."""
    names = found.config["network"].get("label_names", [])
    return {
        names[c] if c < len(names) else str(c): rows[[i for i, k in enumerate(labels) if k == c]]
        for c in dict.fromkeys(labels)
    }


def _start_rows(found: "Belief", start: str, seed: int) -> "Tensor":
    part = opt.rows_of(found.data, "test" if start == "test" else "train", "--start")
    return part.tensor(limit=10_000, generator=seed)


def check_sampling(
    sampler: str, levels: int | None, checkpoint: str, precision: str, device: str
) -> None:
    """Refuse options of `gibbsian sample` that a network's top machine does not take."""
    asked = (sampler, levels, checkpoint, precision, device)
    if asked != ("gibbs", None, "latest", "fp32", "cpu"):
        raise GibbsianError(
            "A deep belief network is sampled on the CPU by block Gibbs in its top machine, from its newest "
            "state; leave --sampler and its options, --levels, --checkpoint, --precision and --device out."
        )


def check_evaluation(compared: bool, checkpoint: str, device: str) -> None:
    """Refuse options of `gibbsian evaluate` that belong to a single machine.

    `compared` says whether one of those of its certificate was given.
    """
    if compared:
        raise GibbsianError(
            "There is no certificate for deep belief networks, whose chains are not compared; leave "
            "--sampler, --mixing-steps, --held-out-margin and --held-out out."
        )
    if (checkpoint, device) != ("latest", "cpu"):
        raise GibbsianError(
            "A deep belief network is evaluated on the CPU in its newest state; leave --checkpoint and "
            "--device out."
        )


def evaluate(
    path: Path, chains: int, temperatures: int, ladder_steps: int | None, rows: int, seed: int,
    as_json: bool, progress: Any,
) -> None:  # fmt: skip
    """Print a network's label error and the bound on its likelihood."""
    import torch

    from gibbsian.belief import runs as belief_runs
    from gibbsian.evaluators import deep_belief

    found = belief_runs.load(path)
    network, data = found.network, found.data
    train = data.train.tensor(limit=rows, generator=seed)
    z = deep_belief.top_partition(
        network, train, _labels(data, "train", rows), chains=chains, temperatures=temperatures,
        ladder_steps=ladder_steps, equilibrate=min(1000, temperatures), generator=seed, progress=progress,
    )  # fmt: skip
    believed = z.believed
    log_z = believed.value if believed else (z.exact if z.exact is not None else z.ais.log_z)  # type: ignore[union-attr]
    out: dict[str, Any] = {
        "stage": found.stage, "log_z": log_z, "log_z_believed": believed is not None,
        "log_z_by": believed.name if believed else "ais",
    }  # fmt: skip
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        if part is None or not len(part):
            continue
        x = part.tensor(limit=rows, generator=seed)
        out[name] = {"rows": len(x)}
        source = torch.Generator().manual_seed(seed)
        if deep_belief.has_likelihood(network, x):
            out[name]["bound"] = deep_belief.bound(network, x, log_z, 10, source).as_dict()
        if network.classes:
            labels = _labels(data, name, rows)
            out[name]["label_error"] = deep_belief.label_error(network, x, labels)
    if as_json:
        typer.echo(json.dumps(out, allow_nan=False))
        return
    _show(out)


def _labels(data: "Dataset", name: str, rows: int) -> "Tensor | None":
    import torch

    labels = getattr(data, name).labels
    return None if labels is None else torch.from_numpy(labels[:rows])


def _nats(value: float | None) -> str:
    return "−∞ or unknown" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _show(out: Mapping[str, Any]) -> None:
    """Print what `evaluate` found, a line a part of the data."""
    typer.echo(f"log Z of the top machine: {out['log_z']:.2f} (by {out['log_z_by']})")
    if not out["log_z_believed"]:
        typer.echo(
            "Its two estimates do not agree, and forward AIS is low on average, so the bounds below may be "
            "too high."
        )
    for name in ("train", "validation", "test"):
        if name not in out:
            continue
        found = out[name]
        words = [f"{name} ({found['rows']:,} rows)"]
        if "label_error" in found:
            words.append(f"label error {100 * found['label_error']:.2f} %")
        if "bound" in found:
            b = found["bound"]
            words.append(
                f"log-likelihood at least {_nats(b['mean'])} nats per row (importance-weighted "
                f"{_nats(b['importance'])})"
            )
        typer.echo(": ".join([words[0], "; ".join(words[1:])]))
