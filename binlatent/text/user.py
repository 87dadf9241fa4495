"""A person's own text encoder: a function in a Python file."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from binlatent.errors import UserError
from binlatent.files import digest, run_python
from binlatent.text.encoder import Encoded

SAMPLE = "a sentence"  # encoded once, for the shapes


class UserEncoder:
    """A function (captions) → (features (n, l, d), mask (n, l), pooled (n, d)); see `text.encoder.TextEncoder`.

    The features of every call have the same l, and a mask is True for the first tokens of a caption. A string
    `fingerprint` in the file names its weights; without it the digest is that of the file alone.
    """

    def __init__(self, function: Callable, path: str, use: str, weights: str):
        self._function, self._path, self._use = function, path, use
        self.record: dict[str, Any] = {}
        features, _, pooled = self._call([SAMPLE])
        self.record = {
            "encoder": path,
            "weights": weights,
            "use": use,
            "length": features.shape[1],
            "token_width": features.shape[2] if use == "tokens" else 0,
            "vector_width": pooled.shape[1],
        }

    @classmethod
    def load(cls, path: str, name: str, *, use: str) -> "UserEncoder":
        """The function `name` of the Python file `path`.

        Raises:
          UserError: there is no such file or function, it does not run, or gives something else.
        """
        file = pathlib.Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"text.encoder: no file {path}; FILE.py:FUNCTION is expected")
        module = run_python(file, f"{path} does not run", lambda module: module)
        if not callable(getattr(module, name, None)):
            raise UserError(f"{path} defines no function {name}(captions)")
        weights = digest(file.read_bytes(), str(getattr(module, "fingerprint", "")))
        return cls(getattr(module, name), f"{path}:{name}", use, weights)

    def encode(self, captions: Sequence[str]) -> Encoded:
        features, mask, pooled = self._call(list(captions))
        if self._use == "pooled":
            return Encoded(vector=pooled)
        return Encoded(tokens=features, mask=mask, vector=pooled)

    def cut(self, captions: Sequence[str]) -> list[str]:
        return []  # only the function knows

    def _call(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            features, mask, pooled = (np.asarray(part) for part in self._function(captions))
        except Exception as error:
            raise UserError(f"{self._path} failed: {type(error).__name__}: {error}") from error
        n, length = len(captions), self.record.get("length")
        if (
            features.ndim != 3
            or mask.shape != features.shape[:2]
            or pooled.ndim != 2
            or {len(features), len(pooled)} != {n}
        ):
            raise UserError(
                f"{self._path} gave shapes {features.shape}, {mask.shape}, {pooled.shape} for {n} captions; features (n, l, "
                "d), mask (n, l) and pooled (n, d) are expected"
            )
        if length and features.shape[1] != length:
            raise UserError(
                f"{self._path} gave {features.shape[1]} tokens, and {length} before: always as many are expected"
            )
        mask = mask.astype(bool)
        if not mask[:, 0].all() or (mask[:, 1:] & ~mask[:, :-1]).any():
            raise UserError(
                f"{self._path} gave a mask with gaps: True for the first tokens of each caption is expected"
            )
        features, pooled = features.astype(np.float16), pooled.astype(np.float16)
        if not (np.isfinite(features[mask]).all() and np.isfinite(pooled).all()):
            raise UserError(f"{self._path} gave values that are NaN, infinite or above 65504")
        return features, mask, pooled
