"""Positions of tokens on a grid, row by row: a table that is added to the tokens, and rotations of queries and keys."""

import jax.numpy as jnp

from binlatent.typing import Array, Float

ROTARY_BASE = (
    100.0  # wavelengths of rotations are from 2π to nearly 200π tokens: grids have fewer than 100 tokens a side
)


def grid_positions(y: int, x: int, width: int) -> Float[Array, "l d"]:
    """2-D sin/cos positions of a y × x grid; a quarter of the width to each of sin y, cos y, sin x, cos x."""
    frequencies = 10_000.0 ** -(jnp.arange(width // 4) / (width // 4))
    rows, columns = _coordinates(y, x, frequencies)
    return jnp.concatenate([jnp.sin(rows), jnp.cos(rows), jnp.sin(columns), jnp.cos(columns)], -1)


def rotary_angles(y: int, x: int, width: int) -> Float[Array, "l half"]:
    """Angles of 2-D rotary positions (Su et al., 2021; on grids Heo et al., 2024), for heads of `width`: the first half of the
    pairs of features turns with the row, the other with the column."""
    frequencies = ROTARY_BASE ** -(jnp.arange(width // 4) / (width // 4))
    return jnp.concatenate(_coordinates(y, x, frequencies), -1)


def rotate(heads: Float[Array, "b l h d"], angles: Float[Array, "l half"]) -> Float[Array, "b l h d"]:
    """Turns the pairs (i, i + d/2) of features by their token's angles, so that a query and a key know how far they are apart."""
    cos, sin = (f(angles)[None, :, None].astype(heads.dtype) for f in (jnp.cos, jnp.sin))
    a, b = jnp.split(heads, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def _coordinates(y: int, x: int, frequencies: Float[Array, "n"]) -> tuple[Float[Array, "l n"], Float[Array, "l n"]]:
    """Row and column of every token, times each frequency."""
    rows, columns = jnp.arange(y)[:, None] * frequencies[None], jnp.arange(x)[:, None] * frequencies[None]
    return jnp.repeat(rows, x, axis=0), jnp.tile(columns, (y, 1))
