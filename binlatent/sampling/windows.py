"""Canvases larger than a network was trained for: overlapping windows of its own size, which cover the canvas.

All windows go through the network as one batch, each with the positions that it was trained with. Where windows overlap,
what they say is averaged (Bar-Tal et al., 2023, MultiDiffusion); a place counts more the nearer it is to the middle of a
window. In sampling that happens at every step, so that all windows are of one reverse process.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from binlatent.sampling.guidance import ConditionalDenoise
from binlatent.typing import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows that overlap by half (by more at the far edges) and cover a canvas.

    Attributes:
      size: (y, x) of a window.
      canvas: (y, x) of the canvas, at least a window's.
      scale: pixels along one side of a token, where images are split; 1 for codes.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    scale: int = 1

    def __post_init__(self):
        if any(part > whole for part, whole in zip(self.size, self.canvas, strict=True)):
            raise ValueError(f"a canvas of {self.canvas} tokens is smaller than a window of {self.size}")

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """Top left corner of each window, in tokens."""
        rows, columns = (
            (*range(0, whole - part, max(1, part // 2)), whole - part)
            for part, whole in zip(self.size, self.canvas, strict=True)
        )
        return tuple((row, column) for row in rows for column in columns)

    def _slices(self) -> list[tuple[slice, slice, slice]]:
        (y, x), s = self.size, self.scale
        return [
            (slice(None), slice(row * s, (row + y) * s), slice(column * s, (column + x) * s))
            for row, column in self.corners
        ]

    def split(self, canvas: Array) -> Array:
        """(b, Y, X, …) → (b · windows, y, x, …), the windows of an example side by side."""
        parts = jnp.stack([canvas[place] for place in self._slices()], axis=1)
        return parts.reshape(-1, *parts.shape[2:])

    def merge(self, parts: Array) -> Array:
        """(b · windows, y, x, …) → (b, Y, X, …): the weighted mean where windows overlap."""
        count = len(self.corners)
        parts = parts.reshape(-1, count, *parts.shape[1:])
        weight = self._weight().reshape(1, *parts.shape[2:4], *(1,) * (parts.ndim - 4))
        height, width = (side * self.scale for side in self.canvas)
        total = jnp.zeros((parts.shape[0], height, width, *parts.shape[4:]), parts.dtype)
        weights = jnp.zeros((1, height, width, *weight.shape[3:]), parts.dtype)
        for i, place in enumerate(self._slices()):
            total, weights = total.at[place].add(weight * parts[:, i]), weights.at[place].add(weight)
        return total / weights

    def _weight(self) -> Array:
        """Of each place of a window: the distance to its edge, as a product over the axes."""
        rows, columns = (
            np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in (side * self.scale for side in self.size)
        )
        return jnp.asarray(rows[:, None] * columns[None], jnp.float32)

    def repeat(self, tree: Any) -> Any:
        """Arrays with one row an example, as one row a window."""
        return jax.tree.map(lambda x: jnp.repeat(x, len(self.corners), axis=0), tree)


def windows_of(size: tuple[int, ...], found: tuple[int, ...], scale: int = 1) -> Windows | None:
    """The windows for a canvas of `found` tokens; None where it is of the network's own `size`."""
    size, found = tuple(size[:2]), tuple(found[:2])
    return None if size == found else Windows(size=size, canvas=found, scale=scale)


def apply(function: Callable[[Array], Array], given: Array, before: Windows | None, after: Windows | None) -> Array:
    """A network on each window of its input; what it gives, merged by the windows of its output."""
    return function(given) if before is None else after.merge(function(before.split(given)))


def on_windows(denoise: ConditionalDenoise, windows: Windows | None) -> ConditionalDenoise:
    """A denoiser of the whole canvas."""
    if windows is None:
        return denoise

    def whole(code, t, condition, condition_mask):
        output = denoise(windows.split(code), *(windows.repeat(tree) for tree in (t, condition, condition_mask)))
        return jax.tree.map(windows.merge, output)

    return whole
