"""What samples are conditioned on: classes by number or name, embeddings, or texts, cycled over the examples."""

import dataclasses
import difflib
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from binlatent.errors import UserError
from binlatent.nets.condition import Condition, Conditioning
from binlatent.text.encoder import Encoded, TextEncoder, check_captions, warn_of_cut
from binlatent.text.named import open_encoder, recorded_encoder
from binlatent.text.options import TextOptions

NULL = "none"  # labels that ask for the null condition


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of examples 0, 1, 2, …: the rows of `values` in turn, each part by itself.

    Attributes:
      values: arrays of labels int32 (n,), vectors (n, …), tokens (n, …); the parts may be of different n.
      negative: the same of what guidance leads away from; None: the null condition.
    """

    values: Condition
    negative: Condition | None = None

    def rows(self, index: np.ndarray) -> Condition:
        """Conditions of the examples `index` (b,), embeddings as float32; nothing else is copied."""
        return jax.tree.map(lambda array: _taken(array, index), self.values)

    def negative_rows(self, index: np.ndarray) -> Condition:
        """The same of what guidance leads away from."""
        return jax.tree.map(lambda array: _taken(array, index), self.negative)


def _taken(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    rows = array[index % len(array)]
    return rows.astype(np.float32) if rows.dtype.kind == "f" else rows


def conditioning(metadata: Mapping[str, Any]) -> Conditioning:
    """What a prior is conditioned on, from its checkpoint's metadata: `num_classes`, `condition_shape` and `text`."""
    return Conditioning.of(metadata["num_classes"], tuple(metadata["condition_shape"]), metadata.get("text"))


def encoder_of(metadata: Mapping[str, Any], options: TextOptions) -> TextEncoder:
    """What turns prompts into the conditions of a prior.

    Args:
      metadata: of the prior's checkpoint.
      options: where the config finds an encoder that is not part of the checkpoint.

    Raises:
      UserError: the prior was trained without texts, or the encoder that it was trained with is not here.
    """
    if record := metadata.get("text"):
        return recorded_encoder(record, options)
    wanted = conditioning(metadata)
    if not (wanted.token_width or wanted.vector_width):
        raise UserError("a prompt is given, but this model was trained without texts")
    if options.encoder == "own":
        raise UserError(
            "a prompt is given, but this model was trained on embeddings, and its config does not say of which text "
            "encoder: set text.encoder in its config.json, as 'clip:NAME', or give embeddings"
        )
    return open_encoder(options)


def takes_prompts(metadata: Mapping[str, Any], options: TextOptions) -> bool:
    """Whether `encoder_of` has an encoder for a prior: its own, or the one that the config names."""
    wanted = conditioning(metadata)
    named = bool(wanted.token_width or wanted.vector_width) and options.encoder != "own"
    return bool(metadata.get("text")) or named


def encode_prompts(encoder: TextEncoder, prompts: Any) -> Encoded:
    """Sentences as a prior reads them; those that are cut are reported.

    Raises:
      UserError: there are none, or one is empty.
    """
    sentences = check_captions(prompts)
    warn_of_cut(encoder, sentences, "prompts")
    return encoder.encode(sentences)


def conditions(
    metadata: Mapping[str, Any], *, labels: Any = None, embeddings: Any = None, texts: Encoded | None = None,
    negative: Encoded | None = None,
) -> Conditions | None:  # fmt: skip
    """The conditions that a caller asks for; None for the null condition.

    Args:
      metadata: of the prior's checkpoint.
      labels: None or "none"; a class or several, by number or name.
      embeddings: of the model's kind: vectors (n, d), tokens (n, l, d), or a mapping with `tokens`, `token_mask` and
        `vector` where it reads several of them.
      texts: prompts, as the model's text encoder gives them.
      negative: negative prompts, likewise.

    Raises:
      UserError: no such class, embeddings of another shape or not finite, or conditions that the model does not take.
    """
    wanted, parts = conditioning(metadata), {}
    if labels is not None and not (isinstance(labels, str) and labels == NULL):
        if not wanted.num_classes:
            raise UserError("labels are given, but this model was trained without classes")
        parts["label"] = _classes(labels, wanted.num_classes, tuple(metadata.get("class_names") or ()))
    if texts is not None:
        parts |= _of_text(texts, wanted)
    elif embeddings is not None:
        parts |= _embeddings(embeddings, wanted)
    if negative is not None and texts is None:
        raise UserError("negative prompts are given without prompts: guidance leads from one to the other")
    if not parts:
        return None
    given = Condition(**parts)
    expected = wanted.absent(1)
    for name, what in (("label", "labels"), ("vector", "vectors"), ("tokens", "texts")):
        if getattr(expected, name) is not None and getattr(given, name) is None:
            raise UserError(
                f"this model is conditioned on {what} too: give all conditions, or none for the null condition"
            )
    found = Conditions(values=given, negative=negative and dataclasses.replace(given, **_of_text(negative, wanted)))
    try:
        wanted.check(found.rows(np.zeros(1, int)), 1)
    except ValueError as error:
        raise UserError(
            f"{error}: text.encoder must be the one that the model was trained with, and text.use='pooled' for its vectors"
        ) from error
    return found


def _of_text(texts: Encoded, wanted: Conditioning) -> dict[str, np.ndarray]:
    if texts.tokens is None and wanted.token_width and not wanted.vector_width:
        return {"tokens": texts.vector[:, None]}  # one token: the text-to-image model of the PyTorch release
    found = {"tokens": texts.tokens, "token_mask": texts.mask, "vector": texts.vector}
    return {name: array for name, array in found.items() if array is not None}


def _embeddings(given: Any, wanted: Conditioning) -> dict[str, np.ndarray]:
    if wanted.vocabulary:
        raise UserError("embeddings are given, but this model reads words by itself: give prompts")
    if not (wanted.vector_width or wanted.token_width):
        raise UserError("embeddings are given, but this model was trained without any")
    if not isinstance(given, Mapping):
        given = {"vector" if wanted.vector_width else "tokens": given}
    names = {"vector": wanted.vector_width, "tokens": wanted.token_width, "token_mask": wanted.token_width}
    if unknown := [name for name in given if not names.get(name)]:
        known = ", ".join(name for name, width in names.items() if width)
        raise UserError(f"embeddings have {', '.join(unknown)}; this model takes {known}")
    if "token_mask" in given and np.shape(given["token_mask"]) != np.shape(given.get("tokens"))[:2]:
        raise UserError("token_mask has another shape than tokens: (n, l) for tokens (n, l, d) is expected")
    return {
        name: _mask(value) if name == "token_mask" else _array(name, value, names[name])
        for name, value in given.items()
    }


def _mask(given: Any) -> np.ndarray:
    mask = np.asarray(given)
    if mask.ndim != 2 or mask.dtype != bool or not mask.any(-1).all():
        raise UserError(f"token_mask is {mask.dtype} {mask.shape}: bool (n, l) is expected, with a token in every row")
    return mask


def _array(name: str, given: Any, width: int) -> np.ndarray:
    try:
        values = np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise UserError(f"conditions: {error}") from error
    ndim = 2 if name == "vector" else 3
    if values.ndim != ndim or values.shape[-1] != width:
        shown = f"(n, {width})" if name == "vector" else f"(n, tokens, {width})"
        raise UserError(f"conditions of shape {values.shape} given, {shown} expected")
    if not values.size:
        raise UserError("no conditions given: at least one is expected, or None")
    if not (values.dtype.kind in "fiu" or values.dtype.name == "bfloat16") or not np.isfinite(values).all():
        raise UserError(f"conditions of type {values.dtype} given: finite numbers are expected, without NaN")
    return values if values.dtype.kind == "f" else values.astype(np.float32)


def _classes(given: Any, num_classes: int, names: tuple[str, ...]) -> np.ndarray:
    items = [given] if isinstance(given, str) or np.ndim(given) == 0 else list(given)
    if not items:
        raise UserError("no labels given: name at least one class, None, or 'none' for the null condition")
    number = {name: i for i, name in enumerate(names)}
    known = f"integers from 0 to {num_classes - 1}" + (f" or names ({', '.join(names[:20])})" if names else "")
    found = []
    for item in items:
        if isinstance(item, str) and item in number:
            found.append(number[item])
        elif isinstance(item, numbers.Integral) and not isinstance(item, bool) and 0 <= item < num_classes:
            found.append(int(item))
        else:
            near = difflib.get_close_matches(item, names, n=3) if isinstance(item, str) else ()
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UserError(f"label {item!r} is no class: {known} are expected{hint}")
    return np.asarray(found, np.int32)
