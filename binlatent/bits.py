"""Bits as arrays: packed bytes, signs, and statistics of every bit over many codes."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from binlatent.typing import Array, Bool, Float, UInt8


def packed_size(shape: tuple[int, ...]) -> int:
    """The size in bytes of a packed code of `shape` (y, x, k); the last byte is padded with zeros."""
    return -(-math.prod(shape) // 8)


def pack(code: Bool[Array, "b y x k"]) -> UInt8[Array, "b n"]:
    """Packs codes into bytes, most significant bit first, in the order (y, x, k). The inverse is `unpack`."""
    return jnp.packbits(code.reshape(code.shape[0], -1), axis=-1)


def unpack(packed: UInt8[Array, "b n"], shape: tuple[int, int, int]) -> Bool[Array, "b y x k"]:
    """Unpacks bytes into codes of `shape` (y, x, k).

    Raises:
      ValueError: the number of bytes does not match `shape`.
    """
    if packed.shape[-1] != packed_size(shape):
        raise ValueError(f"{packed.shape[-1]} bytes are not a code of shape {shape}: {packed_size(shape)} expected")
    bits = jnp.unpackbits(packed, axis=-1, count=math.prod(shape))
    return bits.reshape(packed.shape[0], *shape).astype(bool)


def signs(code: Bool[Array, "*any"], dtype=jnp.float32) -> Float[Array, "*any"]:
    """Bits as ±1, the input of networks that read codes."""
    return jnp.where(code, 1, -1).astype(dtype)


def entropy(p: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Entropy of Bernoulli(p), in bits: 1 for a fair coin, 0 for a dead bit."""
    return -(jax.scipy.special.xlogy(p, p) + jax.scipy.special.xlog1py(1 - p, -p)) / jnp.log(2.0)


@flax.struct.dataclass
class BitStatistics:
    """Counts over codes, with the interface of a clu metric (`merge`, `compute`).

    A bit is one of the k channels of a token; counts are over all tokens of all codes. They are float32, so exact up to
    2²⁴ tokens (65,536 codes of 16×16).
    """

    tokens: Any  # ()
    ones: Any  # (k,): how often each bit is 1
    pairs: Any  # (k, k): how often two bits are 1 together

    @classmethod
    def from_code(cls, code: Bool[Array, "b y x k"], mask: Bool[Array, "b"] | None = None) -> "BitStatistics":
        """Counts of one batch, without examples where `mask` is false (padding)."""
        mask = jnp.ones(code.shape[0], bool) if mask is None else mask
        bits = (code & mask[:, None, None, None]).reshape(-1, code.shape[-1]).astype(jnp.float32)
        return cls(
            tokens=mask.sum().astype(jnp.float32) * code.shape[1] * code.shape[2],
            ones=bits.sum(0),
            # full float32, because an accelerator's default precision would round the counts
            pairs=jnp.matmul(bits.T, bits, precision=jax.lax.Precision.HIGHEST),
        )

    def merge(self, other: "BitStatistics") -> "BitStatistics":
        return jax.tree.map(jnp.add, self, other)

    @property
    def mean(self) -> Float[Array, "k"]:
        return self.ones / self.tokens

    def correlation(self) -> Float[Array, "k k"]:
        """Pearson correlations between bits; 0 for bits that never change."""
        covariance = self.pairs / self.tokens - jnp.outer(self.mean, self.mean)
        scale = jnp.sqrt(jnp.outer(jnp.diagonal(covariance), jnp.diagonal(covariance)))
        return jnp.where(scale > 1e-9, covariance / jnp.maximum(scale, 1e-9), 0.0)

    def compute(self) -> dict[str, Array]:
        """`bit_mean` (k,), and the scalars `bit_entropy` (in bits), `dead_bits`, `bit_correlation` (mean absolute) and
        `repeated_bits`, the number of bits whose correlation with an earlier bit is beyond ±0.95."""
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
