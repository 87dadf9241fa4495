"""`--prompt`, `--prompts`, `--condition`, `--negative_prompt`: what images are to show, in words or as embeddings."""

import dataclasses
import os
import re
from typing import Any

from binlatent.cli import flags
from binlatent.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
    """What images are to show.

    Attributes:
      prompt: a sentence that says what an image shows; give it several times for several sentences, taken in turn.
      prompts: a text file of such sentences, one on each line.
      condition: embeddings in place of sentences, taken in turn; .npy of shape (n, features) or (n, tokens, features), or
        .npz with tokens, token_mask and vector as the model reads them.
      negative_prompt: what guidance leads away from (default: the null condition).
    """

    prompt: tuple[str, ...] = flags.flag((), metavar="TEXT", repeated=True)
    prompts: str | None = flags.flag(None, metavar="FILE")
    condition: str | None = flags.flag(None, metavar="FILE")
    negative_prompt: tuple[str, ...] = flags.flag((), metavar="TEXT", repeated=True)

    def sentences(self) -> list[str]:
        """All prompts.

        Raises:
          UserError: the file is not there, is not UTF-8 or holds no sentence; or there are prompts and embeddings.
        """
        found = list(self.prompt or ()) + ([] if self.prompts is None else _read_prompts(self.prompts))
        if found and self.condition is not None:
            raise UserError("--condition takes the place of prompts: give one of them")
        return found

    def arguments(self) -> dict[str, Any]:
        """The arguments of `Pipeline.conditions`.

        Raises:
          UserError: as `sentences`; or the embeddings cannot be read.
        """
        given: dict[str, Any] = {}
        if sentences := self.sentences():
            given["prompts"] = sentences
        if self.condition is not None:
            given["condition"] = _read_embeddings(self.condition)
        if self.negative_prompt:
            given["negative_prompts"] = list(self.negative_prompt)
        return given


def file_name(index: int, prompt: str) -> str:
    """The name of image `index`, without ending, with the beginning of its prompt."""
    words = re.sub(r"\W+", "-", prompt)[:60].strip("-")
    return f"{index:06d}-{words}".rstrip("-")


def _read_prompts(path: str) -> list[str]:
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:
            found = [line.strip() for line in file if line.strip()]
    except OSError as error:
        raise UserError(
            f"--prompts {path}: {error.strerror}; a text file with a sentence on each line is expected"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts {path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not found:
        raise UserError(f"--prompts {path} holds no sentence: one on each line is expected")
    return found


def _read_embeddings(path: str) -> Any:
    import numpy as np

    from binlatent.files import DAMAGED_NPZ

    try:
        loaded = np.load(os.path.expanduser(path), allow_pickle=False)
        return {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except FileNotFoundError as error:
        raise UserError(f"--condition {path}: no such file; write one with np.save") from error
    except (*DAMAGED_NPZ, SyntaxError) as error:
        raise UserError(
            f"--condition {path} is no readable .npy or .npz file ({error}); write it with np.save"
        ) from error
