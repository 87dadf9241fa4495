"""Canvases larger than a network was trained for: overlapping windows of its own size, which cover the canvas.

Windows go through the network some at a time, each with the positions that it was trained with. Where windows overlap,
what they say is averaged (Bar-Tal et al., 2023, MultiDiffusion); a place counts more the nearer it is to the middle of a
window. In sampling that happens at every step, so that all windows are of one reverse process. The network's memory does
not depend on the canvas; what grows with it are the canvas itself and what the network says of it.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from binlatent.diffusion.prediction import untied
from binlatent.typing import Array, Prediction, PyTree

AT_A_TIME = 64  # windows, unless told otherwise: as many as a pipeline's batch has images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows that overlap by half (by more at the far edges) and cover a canvas.

    Attributes:
      size: (y, x) of a window, in tokens.
      canvas: (y, x) of the canvas, at least a window's.
      at_a_time: how many windows the network gets at a time; one of each example at least.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    at_a_time: int = AT_A_TIME

    def __post_init__(self):
        if any(part > whole for part, whole in zip(self.size, self.canvas, strict=True)):
            raise ValueError(f"a canvas of {self.canvas} tokens is smaller than a window of {self.size}")

    def _starts(self) -> list[list[int]]:
        """Of rows and of columns: where windows begin."""
        return [
            [*range(0, whole - part, max(1, part // 2)), whole - part]
            for part, whole in zip(self.size, self.canvas, strict=True)
        ]

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """Top left corner of each window, in tokens."""
        rows, columns = self._starts()
        return tuple((row, column) for row in rows for column in columns)

    def __call__(self, function: Callable[..., PyTree], canvas: Array, *rows: PyTree, scales=(1, 1)) -> PyTree:
        """A network on the windows of its input; what it gives, merged: the weighted mean where windows overlap.

        Args:
          function: (windows (b · n, y, x, …), *rows) → arrays (b · n, y, x, …), for any n.
          canvas: (b, Y, X, …).
          rows: trees of arrays with one row an example, which all its windows get.
          scales: pixels along one side of a token, in what the function takes and in what it gives; 1 for codes.
        """
        b = len(canvas)
        n = min(max(1, self.at_a_time // b), len(self.corners))
        repeated = jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), rows)

        def made(places):
            """What the function gives for n windows of each example, (n, b, y, x, …)."""
            parts = jax.lax.map(lambda place: self._window(canvas, place, scales[0]), places)
            found = function(jnp.moveaxis(parts, 0, 1).reshape(-1, *parts.shape[2:]), *repeated)
            return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(b, n, *x.shape[1:]), 1, 0), found)

        def add(totals, each):
            found, place, count = each
            return jax.tree.map(lambda total, x: self._add(total, x, place, count, scales[1]), totals, found), None

        def step(totals, inputs):
            places, counts = inputs
            return jax.lax.scan(add, totals, (made(places), places, counts))[0], None

        height, width = (side * scales[1] for side in self.canvas)
        shapes = jax.eval_shape(made, jax.ShapeDtypeStruct((n, 2), jnp.int32))
        empty = jax.tree.map(lambda x: jnp.zeros((b, height, width, *x.shape[4:]), x.dtype), shapes)
        totals = jax.lax.scan(step, empty, self._rounds(n))[0]
        return jax.tree.map(lambda x: (x / self._weights(scales[1], x.ndim)).astype(x.dtype), totals)

    def _rounds(self, n: int) -> tuple[Array, Array]:
        """Corners (rounds, n, 2), n in each round, and 1.0 (rounds, n) for those that count: the last round is filled up."""
        count = len(self.corners)
        rounds = -(-count // n)
        places = np.asarray(self.corners + self.corners[-1:] * (rounds * n - count), np.int32)
        counts = np.arange(rounds * n) < count
        return jnp.asarray(places.reshape(rounds, n, 2)), jnp.asarray(counts.reshape(rounds, n), jnp.float32)

    def _window(self, array: Array, place: Array, scale: int) -> Array:
        """(b, Y, X, …) → (b, y, x, …)."""
        for axis, side in enumerate(self.size):
            array = jax.lax.dynamic_slice_in_dim(array, place[axis] * scale, side * scale, axis + 1)
        return array

    def _add(self, total: Array, found: Array, place: Array, count: Array, scale: int) -> Array:
        """The total (b, Y, X, …) with the weighted values (b, y, x, …) of one window."""
        weight = count * self._weight(scale).reshape(1, *found.shape[1:3], *(1,) * (found.ndim - 3))
        part = self._window(total, place, scale) + (weight * found).astype(total.dtype)
        row, column = place * scale
        return jax.lax.dynamic_update_slice(total, part, (0, row, column, *(0,) * (total.ndim - 3)))

    def _edges(self, scale: int) -> list[np.ndarray]:
        """Of each row and column of a window: the distance to its edge."""
        return [np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in (side * scale for side in self.size)]

    def _weight(self, scale: int) -> Array:
        """Of each place of a window: the distance to its edge, as a product over the axes."""
        rows, columns = self._edges(scale)
        return jnp.asarray(rows[:, None] * columns[None], jnp.float32)

    def _weights(self, scale: int, ndim: int) -> Array:
        """The sum of the weights at each place of the canvas, with as many axes as an array has."""
        sums = []
        for starts, edge, whole in zip(self._starts(), self._edges(scale), self.canvas, strict=True):
            total = np.zeros(whole * scale, np.float32)
            for start in starts:
                total[start * scale : start * scale + len(edge)] += edge
            sums.append(total)
        rows, columns = (jnp.asarray(x) for x in sums)  # windows are all pairs of rows and columns, and so are the sums
        return (rows[:, None] * columns[None]).reshape(1, len(rows), len(columns), *(1,) * (ndim - 3))


def windows_of(size: tuple[int, ...], found: tuple[int, ...], at_a_time: int = AT_A_TIME) -> Windows | None:
    """The windows for a canvas of `found` tokens; None where it is of the network's own `size`."""
    size, found = tuple(size[:2]), tuple(found[:2])
    return None if size == found else Windows(size=size, canvas=found, at_a_time=at_a_time)


def on_windows(denoise: Callable[..., Prediction], windows: Windows | None) -> Callable[..., Prediction]:
    """A denoiser (code, t, *rows) of the whole canvas, whose tokens are independent: what ties them holds within one window."""
    if windows is None:
        return denoise

    def window(*rows):
        return untied(denoise(*rows))

    return lambda code, *rows: windows(window, code, *rows)
