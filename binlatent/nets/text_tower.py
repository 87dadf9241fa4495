"""A small text encoder that is trained with the denoiser: numbers of words in, features of tokens and a pooled vector out."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from binlatent.typing import Array, Bool, Float, Int

DType = jax.typing.DTypeLike


def sequence_positions(length: int, width: int) -> Float[Array, "n d"]:
    """Sin/cos positions of a sequence of any length (Vaswani et al., 2017)."""
    frequencies = 10_000.0 ** -(jnp.arange(width // 2) / (width // 2))
    angles = jnp.arange(length)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


class TextTower(nn.Module):
    """A pre-norm transformer in which every word sees every other, and no padding.

    Attributes:
      vocabulary: how many words there are.
      width, depth, heads: of the transformer.
      dtype: of the computation.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(
        self, words: Int[Array, "b n"], mask: Bool[Array, "b n"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b d"]]:
        """Features of every token, and the mean over those that count."""
        b, n = words.shape
        d = self.width
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        embed = nn.Embed(self.vocabulary, d, embedding_init=nn.initializers.normal(1.0), dtype=self.dtype, name="words")
        tokens = embed(words) + sequence_positions(n, d).astype(self.dtype)[None]
        for i in range(self.depth):
            normed = nn.LayerNorm(dtype=self.dtype, name=f"norm_attention{i}")(tokens)
            query, key, value = (
                part.reshape(b, n, self.heads, d // self.heads)
                for part in jnp.split(dense(3 * d, name=f"query_key_value{i}")(normed), 3, axis=-1)
            )
            mixed = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None])
            tokens = tokens + dense(d, name=f"attention_out{i}")(mixed.reshape(b, n, d))
            hidden = dense(4 * d, name=f"mlp_in{i}")(nn.LayerNorm(dtype=self.dtype, name=f"norm_mlp{i}")(tokens))
            tokens = tokens + dense(d, name=f"mlp_out{i}")(nn.gelu(hidden))
        tokens = nn.LayerNorm(dtype=self.dtype, name="norm_out")(tokens)
        weights = mask[..., None].astype(tokens.dtype)
        pooled = (tokens * weights).sum(1) / weights.sum(1)
        return tokens, pooled
