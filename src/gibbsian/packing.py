"""Take a nested state apart into named tensors and a structure that JSON holds, and back."""

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gibbsian.errors import RunError, TrainingError

_NONFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a nested state into named tensors and a structure that JSON can hold.

    Parameters
    ----------
    tree
        Dicts (with str or int keys), lists, tuples, str, int, float, bool, None and tensors,
        nested at will. An `OrderedDict` comes back as a dict, a `Counter` (which PyTorch's
        ``MultiStepLR`` keeps) as a `Counter`, a parameter as a plain tensor. Non-finite floats,
        empty, zero-dimensional and non-contiguous tensors and tensors that share memory are kept
        bit for bit.

    Returns
    -------
    tensors : dict[str, Tensor]
        Contiguous copies on the CPU, named by their place in the tree.
    structure : Any
        The rest: give both to `unpack` to have the tree back.

    Raises
    ------
    TrainingError
        If the tree holds anything else; the sentence names the place and the type.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(tree, "", tensors)


def _pack(node: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """Encode one node: scalars stand for themselves, all else is a dict of one tag."""
    kind = type(node)
    if node is None or kind in (bool, int, str):
        return node
    if isinstance(node, float):  # numpy.float64 is one; its value is kept exactly
        value = float(node)
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(node, Tensor):
        return {"tensor": _keep(node, where, tensors)}
    if kind in (list, tuple):
        items = [_pack(item, _join(where, i), tensors) for i, item in enumerate(node)]
        return {kind.__name__: items}
    if kind in (dict, OrderedDict, Counter):
        for key in node:
            if type(key) not in (str, int):
                raise _refusal(f"a key of {where or 'the state'}", key)
        items = [[key, _pack(item, _join(where, key), tensors)] for key, item in node.items()]
        return {"counter" if kind is Counter else "dict": items}
    raise _refusal(where or "the state", node)


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _refusal(where: str, node: object) -> TrainingError:
    name = type(node).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return TrainingError(
        f"{where} is {article} {name}: a run keeps tensors, numbers, strings, lists, tuples and "
        "dicts only, since anything else cannot be resumed without unpickling; use an optimizer, "
        "scheduler or callback whose state is made of these."
    )


def _keep(tensor: Tensor, where: str, tensors: dict[str, Tensor]) -> str:
    """Store a contiguous copy of its own memory and return the name that it got."""
    place = where or "tensor"
    if tensor.layout != torch.strided or tensor.dtype not in _DTYPES or tensor.is_meta:
        raise TrainingError(
            f"{place} is a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device.type}, "
            "which a checkpoint cannot hold; keep it as a dense tensor of an ordinary type."
        )
    name, again = place, 1
    while name in tensors or name == "__metadata__":  # {"a.b": x} beside {"a": {"b": y}}
        again += 1
        name = f"{place}#{again}"
    plain = tensor.detach().resolve_neg().to("cpu")
    tensors[name] = plain.clone(memory_format=torch.contiguous_format)
    return name


def unpack(tensors: Mapping[str, Tensor], structure: Any) -> Any:
    """Put together again what `pack` took apart.

    Raises
    ------
    RunError
        If the structure is not one that `pack` makes, or names a tensor that is not there.
    """
    match structure:
        case None | bool() | int() | float() | str():
            return structure
        case {"float": str(value)} if value in _NONFINITE:
            return _NONFINITE[value]
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
        case {"list": [*items]}:
            return [unpack(tensors, item) for item in items]
        case {"tuple": [*items]}:
            return tuple(unpack(tensors, item) for item in items)
        case {"dict": [*items]} if all(map(_is_pair, items)):
            return {key: unpack(tensors, item) for key, item in items}
        case {"counter": [*items]} if all(map(_is_pair, items)):
            return Counter({key: unpack(tensors, item) for key, item in items})
    raise RunError(
        f"the checkpoint's structure holds {str(structure)[:80]!r}, which this version of gibbsian "
        "does not understand; read it with the version that wrote it."
    )


def _is_pair(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and type(item[0]) in (str, int)
