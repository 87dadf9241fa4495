"""Captions in files: a text file beside each image, or `metadata.jsonl`.

An image has one caption or several, of which training draws one at every step. White space at both ends is dropped, and
inside a caption it becomes single spaces, so a caption is always one line and several are joined by line breaks.
"""

import json
import re
from collections.abc import Iterable

import numpy as np
from etils import epath

from binlatent.errors import UserError

METADATA = "metadata.jsonl"
_LOST = re.compile("[\0\ud800-\udfff]")  # NUL, which NumPy strips, and halves of characters, which UTF-8 cannot hold


def clean(captions: Iterable[str]) -> tuple[str, ...]:
    """The captions that are not empty, with single spaces, without NUL and halves of characters."""
    return tuple(filter(None, (" ".join(_LOST.sub(" ", caption).split()) for caption in captions)))


def join(captions: Iterable[str]) -> np.str_:
    """Several captions as one string, a line each: a form that can be batched. `split` is the inverse."""
    return np.str_("\n".join(captions))


def split(text: str) -> tuple[str, ...]:
    """The captions of a text with one on each line."""
    return clean(str(text).split("\n"))


def parse(data: bytes) -> tuple[str, ...]:
    """The captions of a text file: UTF-8, one on each line, at least one.

    Raises:
      ValueError: it is not UTF-8, or holds no caption.
    """
    captions = clean(data.decode("utf-8-sig").splitlines())
    if not captions:
        raise ValueError("the caption is empty; write one or more lines of text")
    return captions


def read_metadata(path: epath.Path) -> dict[str, tuple[str, ...]]:
    """Reads `metadata.jsonl` as Hugging Face's image folder has it.

    Every line is a JSON object with `file_name`, the path of an image relative to this file, and `text`, its caption or a
    list of them. An image may have several lines. Other keys are ignored.

    Returns:
      Captions by `file_name`.

    Raises:
      UserError: a line is not of this form; it is named by its number.
    """
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            name, captions = _entry(json.loads(line.decode("utf-8-sig")))
            found[name] = found.get(name, ()) + captions
        except (ValueError, RecursionError) as error:
            raise UserError(
                f'{path}, line {number}: {error}; expected {{"file_name": "0001.png", "text": "a caption"}}, '
                "where text may be a list."
            ) from error
    return found


def _entry(entry: object) -> tuple[str, tuple[str, ...]]:
    if not isinstance(entry, dict):
        raise ValueError(f"a JSON object is expected, not {type(entry).__name__}")
    name, text = entry.get("file_name"), entry.get("text")
    texts = text if isinstance(text, list) else [text]
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name is {name!r}, a path was expected")
    if not all(isinstance(item, str) for item in texts) or not (captions := clean(texts)):
        raise ValueError(f"text is {text!r}, a caption was expected")
    return name.removeprefix("./"), captions
