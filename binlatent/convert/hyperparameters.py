"""The release's hyper-parameters: read from the tensors of a file, and compared with the user's."""

import json
import os
from typing import Any

from binlatent.errors import UserError


class Hyperparameters:
    """The names and values of an `hparams.json`, which may be empty; keeps track of which were used.

    Raises:
      UserError: the file is missing or is not a JSON object.
    """

    def __init__(self, values: dict[str, Any] | str | os.PathLike | None):
        if values is None:
            values = {}
        if not isinstance(values, dict):
            try:
                with open(values, encoding="utf-8") as file:
                    values = json.load(file)
            except OSError as error:
                raise UserError(f"cannot read the hyper-parameters {os.fspath(values)}: {error.strerror}") from error
            except ValueError as error:
                raise UserError(f"the hyper-parameters {os.fspath(values)} are not JSON: {error}") from error
            if not isinstance(values, dict):
                raise UserError("the hyper-parameters must be a JSON object of names and values")
        self._values = values
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def settle(self, name: str, value: Any, where: str) -> Any:
        """Returns the file's value, with which the user's, if any, must agree.

        Raises:
          UserError: they differ; the message names both.
        """
        self.used.add(name)
        if name in self and _plain(self._values[name]) != _plain(value):
            raise UserError(
                f"the hyper-parameters say {name} = {self._values[name]!r}, but the file's {where} says {value!r}: omit "
                f"{name}, or give the file that belongs to it"
            )
        return value

    def need(self, name: str, kind: type, meaning: str) -> Any:
        """A value that cannot be read from the tensors.

        Raises:
          UserError: it is missing, or has the wrong type.
        """
        if name not in self:
            raise UserError(f"the hyper-parameters lack {name} ({meaning}), which cannot be read from the file")
        return self.get(name, kind, None)

    def get(self, name: str, kind: type, default: Any) -> Any:
        """A value, or the release's default if it is missing.

        Raises:
          UserError: it has the wrong type.
        """
        self.used.add(name)
        if name not in self:
            return default
        value = self._values[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError(f"the hyper-parameter {name} is {value!r}; a {kind.__name__} is expected")
        return value

    def latent_shape(self) -> tuple[int, int] | None:
        """(y, x) of `latent_shape` (1, y, x), or None if it is missing."""
        shape = self.get("latent_shape", list, None)
        if shape is None:
            return None
        if len(shape) < 2 or not all(isinstance(n, int) and n > 0 for n in shape):
            raise UserError(f"the hyper-parameter latent_shape is {shape!r}; [1, height, width] is expected")
        return shape[-2], shape[-1]

    def unused(self) -> list[str]:
        """Names that were not used."""
        return sorted(set(self._values) - self.used)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
