"""Bits as arrays: packed bytes, the ±1 view, and what a window of codes says about every bit."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from binlatent.typing import Array, Bool, Float, UInt8


def packed_size(shape: tuple[int, ...]) -> int:
    """Bytes that a code of `shape` (y, x, k) takes: 8 bits per byte, the last one padded with zeros."""
    return -(-math.prod(shape) // 8)


def pack(code: Bool[Array, "b y x k"]) -> UInt8[Array, "b n"]:
    """Packs codes into bytes, most significant bit first, in the order (y, x, k); the inverse is `unpack`."""
    return jnp.packbits(code.reshape(code.shape[0], -1), axis=-1)


def unpack(packed: UInt8[Array, "b n"], shape: tuple[int, int, int]) -> Bool[Array, "b y x k"]:
    """Unpacks bytes into codes of `shape` (y, x, k).

    Raises:
      ValueError: the number of bytes is not the one that `shape` takes.
    """
    if packed.shape[-1] != packed_size(shape):
        raise ValueError(f"{packed.shape[-1]} bytes do not hold a code of shape {shape}: {packed_size(shape)} expected")
    bits = jnp.unpackbits(packed, axis=-1, count=math.prod(shape))
    return bits.reshape(packed.shape[0], *shape).astype(bool)


def signs(code: Bool[Array, "*any"], dtype=jnp.float32) -> Float[Array, "*any"]:
    """The ±1 view of bits: what a network that reads codes is given."""
    return jnp.where(code, 1, -1).astype(dtype)


def entropy(p: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Entropy of Bernoulli(p), in bits: 1 for a fair coin, 0 for a dead bit."""
    return -(jax.scipy.special.xlogy(p, p) + jax.scipy.special.xlog1py(1 - p, -p)) / jnp.log(2.0)


@flax.struct.dataclass
class BitStatistics:
    """Counts over a window of codes, with the interface of a clu metric (`merge`, `compute`).

    A bit is one of the k channels of a token; every token of every code counts. Counts are float32 and so exact up to
    2²⁴ tokens (65,536 codes of 16 × 16).
    """

    tokens: Any  # ()
    ones: Any  # (k,): how often each bit is 1
    pairs: Any  # (k, k): how often two bits are 1 together

    @classmethod
    def from_code(cls, code: Bool[Array, "b y x k"], mask: Bool[Array, "b"] | None = None) -> "BitStatistics":
        """Counts one batch; examples where `mask` is false (padding) do not count."""
        keep = jnp.ones(code.shape[0], bool) if mask is None else mask
        bits = (code & keep[:, None, None, None]).reshape(-1, code.shape[-1]).astype(jnp.float32)
        return cls(
            tokens=keep.sum().astype(jnp.float32) * code.shape[1] * code.shape[2],
            ones=bits.sum(0),
            # full float32: the default precision of an accelerator would round the counts
            pairs=jnp.matmul(bits.T, bits, precision=jax.lax.Precision.HIGHEST),
        )

    def merge(self, other: "BitStatistics") -> "BitStatistics":
        return jax.tree.map(jnp.add, self, other)

    @property
    def mean(self) -> Float[Array, "k"]:
        return self.ones / self.tokens

    def correlation(self) -> Float[Array, "k k"]:
        """Pearson correlation of every two bits; 0 where one of them never changes."""
        covariance = self.pairs / self.tokens - jnp.outer(self.mean, self.mean)
        scale = jnp.sqrt(jnp.outer(jnp.diagonal(covariance), jnp.diagonal(covariance)))
        return jnp.where(scale > 1e-9, covariance / jnp.maximum(scale, 1e-9), 0.0)

    def compute(self) -> dict[str, Array]:
        """`bit_mean` (k,), and the scalars `bit_entropy` (bits), `dead_bits`, `bit_correlation` (mean absolute), and
        `repeated_bits`: those whose correlation with an earlier bit is beyond ±0.95."""
        k = self.ones.shape[0]
        correlation = jnp.abs(self.correlation())
        off_diagonal = correlation.sum() - jnp.diagonal(correlation).sum()
        return {
            "bit_mean": self.mean,
            "bit_entropy": entropy(self.mean).mean(),
            "dead_bits": jnp.sum((self.ones == 0) | (self.ones == self.tokens)),
            "bit_correlation": off_diagonal / max(k * (k - 1), 1),
            "repeated_bits": jnp.sum(jnp.any(jnp.tril(correlation, -1) > 0.95, axis=-1)),
        }
