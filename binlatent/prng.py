"""Randomness as a function of (root key, stream name, step), and of the example's place in the global batch.

Nothing random is carried from step to step, so there is nothing to save: a resumed run draws what the uninterrupted one
would have drawn. Each example has a key of its own, so the same seed gives the same bits on one device, on eight and in
micro-batches.
"""

import numbers

import jax
import jax.numpy as jnp

from binlatent.errors import UserError
from binlatent.typing import Array, Float, Key, PRNGKey

# The only list of stream names. Append; a reordering changes every run.
STREAMS = ("init", "train", "evaluate", "encode", "sample", "preview", "likelihood", "edit")


def check_seed(seed: int) -> None:
    """Raises UserError for what is no seed: JAX takes others modulo 2³², so that two of them would give the same draws."""
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed!r}: an integer from 0 to {2**32 - 1} is expected")


def root(seed: int) -> PRNGKey:
    """The root key of a run.

    Raises:
      UserError: see `check_seed`.
    """
    check_seed(seed)
    return jax.random.key(int(seed))


def stream(key: PRNGKey, name: str, step=0) -> PRNGKey:
    """The key of a named stream at a step (or at any other index).

    Raises:
      ValueError: `name` is no stream of `STREAMS`.
    """
    if name not in STREAMS:
        raise ValueError(f"no random stream {name!r}; there are {', '.join(STREAMS)}")
    return jax.random.fold_in(jax.random.fold_in(key, STREAMS.index(name)), step)


def per_example(key: PRNGKey, num: int, start: int | Array = 0) -> Key[Array, "b"]:
    """One key per example, a function of its index alone: examples start … start + num − 1."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(start + jnp.arange(num, dtype=jnp.uint32))


def fold(keys: Key[Array, "b"], data) -> Key[Array, "b"]:
    """Folds the same number (a step, a purpose) into every example's key."""
    return jax.vmap(lambda k: jax.random.fold_in(k, data))(keys)


def uniform(keys: Key[Array, "b"], shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """U[0, 1) draws of `shape` for every example."""
    return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)
