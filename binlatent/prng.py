"""Randomness as a function of (root key, stream name, step) and of the example's index in the global batch.

There is no random state to save: a resumed run makes the same draws as an uninterrupted one. Each example has its own
key, so a seed gives the same bits on one device, on eight and in micro-batches.
"""

import numbers
from typing import Any

import jax
import jax.numpy as jnp

from binlatent.errors import UserError
from binlatent.typing import Array, Float, Key, PRNGKey, UInt32

# All stream names. Only append: another order would change every run.
STREAMS = ("init", "train", "evaluate", "encode", "sample", "preview", "likelihood", "edit")


def check_seed(seed: Any) -> None:
    """Raises UserError unless 0 ≤ seed < 2³²: JAX takes seeds modulo 2³², so others would repeat the same draws."""
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed!r}: an integer from 0 to {2**32 - 1} is expected")


def root(seed: numbers.Integral) -> PRNGKey:
    """Returns the root key of a run.

    Raises:
      UserError: see `check_seed`.
    """
    check_seed(seed)
    return jax.random.key(int(seed))


def stream(key: PRNGKey, name: str, step=0) -> PRNGKey:
    """Returns the key of a named stream at a step (or another index).

    Raises:
      ValueError: `name` is not in `STREAMS`.
    """
    if name not in STREAMS:
        raise ValueError(f"no random stream {name!r}; there are {', '.join(STREAMS)}")
    return jax.random.fold_in(jax.random.fold_in(key, STREAMS.index(name)), step)


def per_example(key: PRNGKey, num: int, start: int | Array = 0) -> Key[Array, "b"]:
    """One key per example start … start + num − 1, a function of the example's index alone."""
    return at(key, jnp.asarray(start, jnp.uint32) + jnp.arange(num, dtype=jnp.uint32))


def at(key: PRNGKey, index: UInt32[Array, "b"]) -> Key[Array, "b"]:
    """The keys of the examples `index`."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def fold(keys: Key[Array, "b"], data) -> Key[Array, "b"]:
    """Folds the same number into every example's key."""
    return jax.vmap(lambda k: jax.random.fold_in(k, data))(keys)


def uniform(keys: Key[Array, "b"], shape: tuple[int, ...]) -> Float[Array, "b ..."]:
    """Draws from U[0, 1), of `shape` for every example."""
    return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)
