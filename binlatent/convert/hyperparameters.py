"""The release's hyper-parameters: what a file's tensors say, against what a person says."""

import json
import os
from typing import Any

from binlatent.errors import UserError


class Hyperparameters:
    """The names and values of an `hparams.json`, which may be empty; remembers which of them mattered.

    Raises:
      UserError: the file is missing or is not a JSON object.
    """

    def __init__(self, given: dict[str, Any] | str | os.PathLike | None):
        if given is None:
            given = {}
        if not isinstance(given, dict):
            try:
                with open(given, encoding="utf-8") as file:
                    given = json.load(file)
            except OSError as error:
                raise UserError(f"cannot read the hyper-parameters {os.fspath(given)}: {error.strerror}") from error
            except ValueError as error:
                raise UserError(f"the hyper-parameters {os.fspath(given)} are not JSON: {error}") from error
            if not isinstance(given, dict):
                raise UserError("the hyper-parameters must be a JSON object: names and values")
        self._given = given
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._given.get(name) is not None

    def settle(self, name: str, found: Any, where: str) -> Any:
        """What the file says; a given value must agree.

        Raises:
          UserError: it does not; the message names both.
        """
        self.used.add(name)
        if name in self and _plain(self._given[name]) != _plain(found):
            raise UserError(
                f"the hyper-parameters say {name} = {self._given[name]!r}, but the file's {where} says {found!r}: leave "
                f"{name} out, or give the file that belongs to it"
            )
        return found

    def need(self, name: str, kind: type, meaning: str) -> Any:
        """A value that no tensor tells.

        Raises:
          UserError: it is not given, or of another type.
        """
        if name not in self:
            raise UserError(f"the hyper-parameters lack {name} ({meaning}), which cannot be read from the file")
        return self.get(name, kind, None)

    def get(self, name: str, kind: type, default: Any) -> Any:
        """A value, or what the release takes where it is not given.

        Raises:
          UserError: a value of another type.
        """
        self.used.add(name)
        if name not in self:
            return default
        value = self._given[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError(f"the hyper-parameter {name} is {value!r}; a {kind.__name__} is expected")
        return value

    def latent_shape(self) -> tuple[int, int] | None:
        """(y, x) of `latent_shape` (1, y, x), where it is given."""
        shape = self.get("latent_shape", list, None)
        if shape is None:
            return None
        if len(shape) < 2 or not all(isinstance(n, int) and n > 0 for n in shape):
            raise UserError(f"the hyper-parameter latent_shape is {shape!r}; [1, height, width] is expected")
        return shape[-2], shape[-1]

    def unused(self) -> list[str]:
        """Names that had no say."""
        return sorted(set(self._given) - self.used)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
