"""A classifier that starts from a deep belief network's recognition weights, as an `nn.Sequential`."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from gibbsian import checkpoint
from gibbsian import units as families
from gibbsian.arguments import number, whole
from gibbsian.belief import DeepBeliefNetwork
from gibbsian.connections import Dense
from gibbsian.directed import Directed
from gibbsian.errors import DataError, GibbsianError, RunError
from gibbsian.units import base as unit

_FORMAT = "gibbsian-classifier-1"
_SCALE = 0.01  # of an output layer that no label units give a start
_ROWS = 4096


class Dropout(nn.Module):
    """Sets each column to 0 with probability `p` while training, and scales the rest by 1/(1 − p).

    Unlike PyTorch's own, it draws from a generator that is handed over (`generator`), so that runs resume
    bit for bit. (Hinton et al. 2012; the scaling keeps pre-trained weights as they are.)
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = _share(p)
        self.generator: Generator | None = None

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Drop columns, row by row, while training."""
        if not self.training or self.p == 0:
            return x
        u = torch.rand(x.shape, generator=self.generator, dtype=x.dtype, device=x.device)
        return x * (u >= self.p).to(x.dtype) / (1 - self.p)


class Classifier(nn.Sequential):
    """Recognition layers, each by its mean given the one below, and a linear output layer.

    Its output are logits. Made by `classifier` or `read`.

    Parameters
    ----------
    layers : sequence of Directed
        The hidden layers.
    classes : sequence of int
        The label that each output stands for.
    dropout, input_dropout : float
        Probabilities with which hidden units and columns of the data are dropped while training.

    Raises
    ------
    GibbsianError
        If there are fewer than two classes, or a probability is impossible.
    """

    def __init__(
        self, layers: Sequence[Directed], classes: Sequence[int], dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:  # fmt: skip
        codes = tuple(whole(c, "A class", -(2**63)) for c in classes)
        if len(set(codes)) < 2 or len(set(codes)) < len(codes):
            raise GibbsianError(
                f"A classifier needs at least two classes, each named once, not {list(codes)}."
            )
        hidden = [part for layer in layers for part in (layer, Dropout(dropout))]
        output = nn.Linear(layers[-1].units.size, len(codes))
        super().__init__(Dropout(input_dropout), *hidden, output)
        self.classes = codes
        self.dropout, self.input_dropout = _share(dropout), _share(input_dropout)

    @property
    def hidden(self) -> list[Any]:
        """The hidden layers, each a `Directed`."""
        return list(self.children())[1:-1:2]

    @property
    def output(self) -> Any:
        """The output layer, an `nn.Linear`."""
        return list(self.children())[-1]

    def draw_from(self, generator: Generator) -> None:
        """Let all dropout masks come from this generator."""
        for part in self.modules():
            if isinstance(part, Dropout):
                part.generator = generator

    @torch.no_grad()
    def logits(self, x: Float[Tensor, "rows n"]) -> Float[Tensor, "rows classes"]:
        """Return the logits of rows with nothing dropped, some thousand rows at a time."""
        before, like = self.training, next(self.parameters())
        self.eval()
        out = torch.cat([self(part.to(like)) for part in x.split(_ROWS)])
        self.train(before)
        return out

    def classify(self, x: Float[Tensor, "rows n"]) -> Int64[Tensor, " rows"]:
        """Return the most probable class of each row.

        Raises
        ------
        DataError
            If the rows are not as wide as the data it was made for.
        """
        wide = self.hidden[0].source
        if x.shape[1] != wide:
            raise DataError(
                f"The rows to classify have {x.shape[1]} columns, and this classifier was trained on "
                f"{wide}."
            )
        found = self.logits(x).argmax(dim=1)
        return torch.tensor(self.classes, device=found.device)[found]

    def places(self, labels: Int64[Tensor, " rows"], what: str) -> Int64[Tensor, " rows"]:
        """Return which output each label belongs to.

        Raises
        ------
        DataError
            If a label is none of the classes.
        """
        hit = labels[:, None] == torch.tensor(self.classes, device=labels.device)
        if not bool(hit.any(dim=1).all()):
            bad = int(labels[~hit.any(dim=1)][0])
            known = ", ".join(map(str, self.classes))
            raise DataError(
                f"{what} hold the label {bad}, which is not a class to be told; these are {known}."
            )
        return hit.to(torch.uint8).argmax(dim=1)

    def spec(self) -> dict[str, Any]:
        """Return plain values from which `from_spec` rebuilds it, all but its parameters."""
        return {
            "columns": self.hidden[0].source,
            "hidden": [families.spec(layer.units) for layer in self.hidden],
            "classes": list(self.classes),
            "dropout": self.dropout,
            "input_dropout": self.input_dropout,
        }


def _share(p: float) -> float:
    if not 0 <= number(p, "The probability of dropout") < 1:
        raise GibbsianError(f"The probability of dropout lies in [0, 1), not at {p!r}.")
    return float(p)


def classifier(
    network: DeepBeliefNetwork,
    classes: Sequence[int] | None = None,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    generator: Generator | None = None,
) -> Classifier:
    """Make a classifier from a network: recognition layers, the top machine upwards, and an output layer.

    The output layer starts at the couplings of the label units, where there are any, so that its logits
    are those of the labels given the top layer; else at small random values.

    Parameters
    ----------
    network : DeepBeliefNetwork
    classes : sequence of int, optional
        The labels to be told; those of the network unless given.
    dropout, input_dropout : float
        See `Classifier`.
    generator : torch.Generator
        Of the random values.

    Raises
    ------
    GibbsianError
        If there are fewer than two classes.
    """
    top, pen = network.top, network.pen
    with torch.no_grad():
        matrix = top.joints[0].up(torch.eye(top.sizes[0]).to(next(network.parameters())))
    last = Dense(pen, top.sizes[1]).to(matrix)
    last.weight.data.copy_(matrix[:pen])
    hidden = [copy.deepcopy(layer) for layer in network.up_layers]
    hidden.append(Directed(copy.deepcopy(top.layers[1]), last, upwards=True))
    codes = network.classes if classes is None else tuple(classes)
    made = Classifier(hidden, codes, dropout, input_dropout).to(matrix)
    with torch.no_grad():
        made.output.bias.zero_()
        made.output.weight.normal_(0.0, _SCALE, generator=generator)
        if codes == network.classes and network.classes:
            labels = unit.members(top.layers[0])[1]
            made.output.weight.copy_(matrix[pen:])
            made.output.bias.copy_(labels.get_parameter("bias"))
    return made


def from_spec(spec: Mapping[str, Any]) -> Classifier:
    """Build the classifier that `Classifier.spec` described, with parameters at their start.

    Raises
    ------
    GibbsianError
        If the description lacks a part.
    """
    missing = sorted({"columns", "hidden", "classes"} - set(spec))
    if missing:
        raise GibbsianError(f"The description of a classifier lacks its {' and '.join(missing)}.")
    layers, width = [], spec["columns"]
    for entry in spec["hidden"]:
        units = families.from_spec(entry)
        layers.append(Directed(units, Dense(width, units.size), upwards=True))
        width = units.size
    drop = (spec.get("dropout", 0.0), spec.get("input_dropout", 0.0))
    return Classifier(layers, spec["classes"], *drop)


def save(model: Classifier, path: str | Path) -> None:
    """Write a classifier to one safetensors file; its description travels in the header.

    Raises
    ------
    RunError
        If the file cannot be written.
    """
    from safetensors.torch import save as encoded

    tensors = {k: t.detach().cpu().contiguous() for k, t in model.state_dict().items()}
    header = {"format": _FORMAT, "classifier": json.dumps(model.spec())}
    checkpoint.publish({Path(path): encoded(tensors, header)})


def read(path: str | Path) -> Classifier:
    """Read a classifier that `save` wrote.

    Raises
    ------
    RunError
        If the file is missing, damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise RunError(f"There is no classifier file {path}; give one that a fine-tuning wrote.")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is not a readable classifier file: {error}.") from None
    if header.get("format") != _FORMAT:
        raise RunError(f"{path} holds no classifier; give a file that a fine-tuning wrote.")
    try:
        model = from_spec(json.loads(header["classifier"]))
        model.load_state_dict(tensors)
    except (GibbsianError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{path} describes a classifier that does not fit its parameters; save it anew ({error})."
        ) from None
    return model.eval()
