"""A fair part of a source: many sources are sorted, so their first examples are of few classes."""

from collections.abc import Callable

import numpy as np

from binlatent.data.options import DataOptions
from binlatent.data.sources.base import Example, Source


class Spread(Source):
    """`num` examples of a source, spread evenly over it, in its order; all of it where it has no more."""

    def __init__(self, source: Source, num: int):
        super().__init__()
        self._source, self.threads = source, source.threads
        self._indices = np.linspace(0, len(source) - 1, min(num, len(source)), dtype=int)

    def __len__(self) -> int:
        return len(self._indices)

    def __repr__(self) -> str:
        return repr(self._source)

    def read(self, index: int) -> Example:
        return self._source.read(int(self._indices[index]))

    def __getitem__(self, index: int) -> Example:
        return self._source[int(self._indices[index])]

    def counted(self, index: int) -> bool:
        return self._source.counted(int(self._indices[index]))

    def train_transform(self, options: DataOptions) -> Callable[[Example, np.random.Generator], Example]:
        return self._source.train_transform(options)

    def eval_transform(self, options: DataOptions) -> Callable[[Example], Example]:
        return self._source.eval_transform(options)
