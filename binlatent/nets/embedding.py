"""The part of a denoiser that sees the condition alone, and neither code nor time: in sampling it is computed once."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from binlatent.nets.condition import Condition, Conditioning
from binlatent.nets.text_tower import TextTower
from binlatent.typing import Array, Bool

DType = jax.typing.DTypeLike


@flax.struct.dataclass
class Embedded:
    """A condition as a denoiser uses it; a part that it does not have is None.

    `vector` float (b, d): added to the time embedding. `text` (b, n, d): read by cross-attention where `text_mask` (b, n).
    """

    vector: Any = None
    text: Any = None
    text_mask: Any = None


class ConditionEmbedding(nn.Module):
    """Turns conditions into what the blocks use, with the learned null in place of those that are dropped.

    Attributes:
      conditioning: what the denoiser is conditioned on.
      width, heads, text_depth, dtype: see `Denoiser`.
    """

    conditioning: Conditioning
    width: int
    heads: int
    text_depth: int
    dtype: DType

    @nn.compact
    def __call__(self, condition: Condition | None, keep: Bool[Array, "b"] | None, b: int) -> Embedded:
        """The condition of b examples; None, and False in `keep`, are the null."""
        d, wanted = self.width, self.conditioning
        if not wanted:
            if condition is not None:
                raise ValueError("a condition is given to a denoiser that was made without one")
            return Embedded()
        if condition is None:
            condition, keep = wanted.absent(b), jnp.zeros(b, bool)
        wanted.check(condition, b)
        keep = jnp.ones(b, bool) if keep is None else keep

        vectors, text, mask = [], None, None
        if wanted.num_classes:
            small = nn.initializers.normal(0.02)
            vectors.append(nn.Embed(wanted.num_classes, d, embedding_init=small, name="classes")(condition.label))
        if wanted.vector_width:
            vectors.append(nn.Dense(d, dtype=self.dtype, name="vector_in")(condition.vector.astype(self.dtype)))
        if wanted.texts:
            text, mask, pooled = self._text(condition, keep)
            vectors += [] if pooled is None else [pooled]
        if wanted.guidance:
            weight = jnp.zeros(b) if condition.guidance is None else condition.guidance
            hidden = nn.silu(nn.Dense(d, name="guidance_in")(weight[:, None]))
            # zero at first: a student starts as its teacher, without guidance
            vectors.append(nn.Dense(d, use_bias=False, kernel_init=nn.initializers.zeros, name="guidance_out")(hidden))
        vector = None
        if vectors:
            null = self.param("null", nn.initializers.normal(0.02), (d,))[None]  # (1, d)
            vector = jnp.where(keep[:, None], sum(x.astype(jnp.float32) for x in vectors), null)
        return Embedded(vector, text, mask)

    def _text(self, condition: Condition, keep: Array) -> tuple[Array, Array, Array | None]:
        """Text tokens (b, n, d), which of them count (b, n), and the tower's pooled vector. The null is one learned token."""
        d, tokens, mask = self.width, condition.tokens, condition.token_mask
        mask = jnp.ones(tokens.shape[:2], bool) if mask is None else mask
        pooled = None
        if self.conditioning.vocabulary:
            words, depth = self.conditioning.vocabulary, self.text_depth
            tower = TextTower(words, d, depth, self.heads, self.dtype, name="text")
            text, pooled = tower(tokens.astype(jnp.int32), mask)
            pooled = nn.Dense(d, dtype=self.dtype, name="pooled_in")(pooled)
        else:
            tokens = jnp.where(mask[..., None], tokens, 0).astype(self.dtype)  # padding may hold anything
            text = nn.Dense(d, dtype=self.dtype, name="tokens_in")(tokens.reshape(-1, tokens.shape[-1]))
            text = text.reshape(*mask.shape, d)
        null = self.param("null_token", nn.initializers.normal(0.02), (d,))[None, None].astype(self.dtype)
        first = jnp.arange(mask.shape[1])[None] == 0
        return jnp.where(keep[:, None, None], text, null), jnp.where(keep[:, None], mask, first), pooled
