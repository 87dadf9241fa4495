"""Editing: known bits are clamped while the rest is sampled, and interpolations between codes."""

import jax.numpy as jnp

from binlatent import prng
from binlatent.diffusion import process
from binlatent.sampling.sampler import Clamp
from binlatent.typing import Array, Bool, Float, Key

CLAMPS = ("noised", "code")


def hold(code: Bool[Array, "b *bits"], known: Bool[Array, "b *bits"], kind: str = "noised") -> Clamp:
    """A sampler's clamp that keeps the bits of `code` where `known`.

    Args:
      code: the code whose bits are known.
      known: which bits to keep.
      kind: `noised`, a fresh forward sample of the known bits at the noise level of each step, so that the network sees
        what it was trained on; or `code`, the known bits themselves (the release's).

    Raises:
      ValueError: there is no such kind.
    """
    if kind not in CLAMPS:
        raise ValueError(f"no clamp {kind!r}; there are {', '.join(CLAMPS)}")

    def clamp(keys: Array, current: Array, alpha: Array) -> Array:
        held = code if kind == "code" else process.corrupt(prng.uniform(keys, code.shape[1:]), code, alpha)
        return jnp.where(known, held, current)

    return clamp


def noised(keys: Key[Array, "b"], code: Bool[Array, "b *bits"], alpha: Float[Array, ""]) -> Bool[Array, "b *bits"]:
    """A code pushed forward to keep probability α: where a variation of it starts."""
    return process.corrupt(prng.uniform(keys, code.shape[1:]), code, alpha)


def interpolate(
    uniform: Float[Array, "*bits"], first: Bool[Array, "*bits"], second: Bool[Array, "*bits"], num: int
) -> Bool[Array, "n *bits"]:
    """`num` codes from `first` to `second`: each differing bit changes over at a place of its own (its uniform draw)."""
    if num < 2:
        raise ValueError(f"an interpolation needs at least 2 codes, got {num}")
    place = jnp.linspace(0.0, 1.0, num).reshape(num, *(1,) * first.ndim)
    return jnp.where(place > uniform[None], second[None], first[None])
