"""Parameters from a state dict: each of our parameters has a source, and each of their tensors is used once or refused."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from einops import rearrange

from binlatent.errors import UserError
from binlatent.typing import PyTree

State = Mapping[str, np.ndarray]

# theirs → ours
LAYOUTS = {
    "identity": lambda a: a,
    "conv": lambda a: rearrange(a, "o i h w -> h w i o"),
    "dense": lambda a: a.T,  # (out, in) → (in, out)
    "only": lambda a: a[0],  # (1, …) → (…)
}
# our shape → theirs
_SHAPES = {
    "identity": lambda s: s,
    "conv": lambda s: (s[3], s[2], s[0], s[1]),
    "dense": lambda s: s[::-1],
    "only": lambda s: (1, *s),
}
NAMED = 8  # keys or shapes in one message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The source of one of our parameters.

    Attributes:
      keys: the tensor's name; for scanned layers, one name per layer.
      stacked: whether the tensors `keys` are stacked along a leading axis of layers.
      layout: the order of their axes, see `LAYOUTS`.
      decided_by: the release's hyper-parameters that determine its shape, for messages.
    """

    keys: tuple[str, ...]
    stacked: bool = False
    layout: str = "identity"
    decided_by: str

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that each tensor must have for a parameter of shape `ours`."""
        return _SHAPES[self.layout](ours[1:] if self.stacked else ours)

    def read(self, state: State) -> np.ndarray:
        arrays = [LAYOUTS[self.layout](np.asarray(state[key], np.float32)) for key in self.keys]
        return np.ascontiguousarray(np.stack(arrays) if self.stacked else arrays[0])


Sources = Mapping[tuple[str, ...], Source]


def conv(path: tuple[str, ...], key: str, decided_by: str, *, bias: bool = True) -> Sources:
    """The kernel (and bias) of a convolution."""
    kernel = {(*path, "kernel"): Source(keys=(f"{key}.weight",), layout="conv", decided_by=decided_by)}
    return kernel | ({(*path, "bias"): Source(keys=(f"{key}.bias",), decided_by=decided_by)} if bias else {})


def norm(path: tuple[str, ...], key: str, decided_by: str) -> Sources:
    """The scale and bias of a normalisation."""
    return {
        (*path, "scale"): Source(keys=(f"{key}.weight",), decided_by=decided_by),
        (*path, "bias"): Source(keys=(f"{key}.bias",), decided_by=decided_by),
    }


def dense(path: tuple[str, ...], key: str, decided_by: str) -> Sources:
    """The kernel and bias of a dense layer."""
    return {
        (*path, "kernel"): Source(keys=(f"{key}.weight",), layout="dense", decided_by=decided_by),
        (*path, "bias"): Source(keys=(f"{key}.bias",), decided_by=decided_by),
    }


def fill(abstract: PyTree, sources: Sources, state: State) -> tuple[PyTree, set[str]]:
    """Returns a parameter tree with the shapes of `abstract` (nested dicts), and the names of the tensors used.

    Raises:
      UserError: tensors are missing or have the wrong shape; the message names them, both shapes, and the likely
        hyper-parameter.
    """
    ours = {tuple(part.key for part in path): leaf for path, leaf in jax.tree.leaves_with_path(abstract)}
    if ours.keys() != sources.keys():
        raise AssertionError(f"parameters without a source, or the reverse: {sorted(ours.keys() ^ sources.keys())}")
    used = [key for source in sources.values() for key in source.keys]
    if len(used) != len(set(used)):
        raise AssertionError("a tensor is used twice")

    if missing := [key for key in used if key not in state]:
        raise UserError(
            f"the file lacks {len(missing)} of the {len(used)} tensors that these hyper-parameters need: "
            f"{some(missing)}. It is damaged or of another model, or a hyper-parameter is wrong "
            f"(likely {sources[_owner(sources, missing[0])].decided_by})"
        )
    mismatches = []
    for path, source in sources.items():
        expected = source.shape(ours[path].shape)
        mismatches += [
            f"{key} has shape {state[key].shape}, expected {expected} (check {source.decided_by})"
            for key in source.keys
            if state[key].shape != expected
        ]
    if mismatches:
        raise UserError("tensors do not match the hyper-parameters:\n  " + "\n  ".join(mismatches[:NAMED]))

    tree: dict[str, Any] = {}
    for path, source in sources.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = source.read(state)
    return tree, set(used)


def _owner(sources: Sources, key: str) -> tuple[str, ...]:
    return next(path for path, source in sources.items() if key in source.keys)


def some(names: Iterable[str]) -> str:
    """The first few names, and the number of the rest."""
    names = list(names)
    return ", ".join(names[:NAMED]) + (f", and {len(names) - NAMED} more" if len(names) > NAMED else "")


def refuse_unknown(state: State, known: set[str], file: str) -> None:
    """Checks that every tensor is known: used, or listed as unused.

    Raises:
      UserError: some are not.
    """
    if unknown := [key for key in state if key not in known]:
        raise UserError(
            f"{file} has {len(unknown)} tensors that are unknown to this architecture: {some(unknown)}. Was it written by "
            "a modified version of the release's code?"
        )
