"""The denoiser of the 2023 release, for imported checkpoints.

A pre-norm transformer over the code's tokens. The time is one token appended to them, a class or vector condition
another; text is read by cross-attention. Where it differs from `nets.denoiser`, it follows the release.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from binlatent.bits import signs
from binlatent.nets.condition import Condition, Conditioning
from binlatent.typing import Array, Bool, Float, Prediction

PREDICTIONS = ("flip", "z0")


def time_features(index: Float[Array, "b"], steps: int, width: int) -> Float[Array, "b d"]:
    """sin, then cos, of (i − 1)/steps · 4000 at frequencies exp(−ln 10000 · j/(half − 1)), j < half = width/2."""
    half = width // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half) / (half - 1))
    angles = ((index - 1) / steps * 4000)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class OfficialBlock(nn.Module):
    """Attention, optional cross-attention and MLP, each after a LayerNorm and scaled by a gain per channel."""

    width: int
    heads: int
    text_width: int  # of the tokens for cross-attention; 0 for none
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, tokens: Array, self_mask: Array | None, text: Array | None, text_mask: Array | None
    ) -> tuple[Array, None]:
        d, b = self.width, tokens.shape[0]
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))
        norm = partial(nn.LayerNorm, dtype=self.dtype, epsilon=1e-5)

        def gain(name):
            return self.param(name, nn.initializers.ones, (d,)).astype(self.dtype)[None, None]

        def heads(x):
            return rearrange(x, "b l (heads c) -> b l heads c", heads=self.heads)

        query, key, value = jnp.split(dense(3 * d, name="qkv")(norm(name="norm_attention")(tokens)), 3, axis=-1)
        mixed = jax.nn.dot_product_attention(heads(query), heads(key), heads(value), mask=self_mask)
        tokens = tokens + gain("gain_attention") * dense(d, name="attention_out")(
            rearrange(mixed, "b l heads c -> b l (heads c)")
        )

        if self.text_width:
            null = self.param("cross_null", nn.initializers.zeros, (1, 1, self.text_width)).astype(self.dtype)
            null = jnp.broadcast_to(null, (b, 1, self.text_width))
            if text is None:
                text = null
            elif text_mask is None:
                text = text.astype(self.dtype)
            else:
                text = jnp.concatenate([null, text.astype(self.dtype)], axis=1)
            query = dense(d, name="cross_query")(norm(name="norm_cross")(tokens))
            key, value = jnp.split(dense(2 * d, name="cross_key_value")(text), 2, axis=-1)
            mixed = jax.nn.dot_product_attention(heads(query), heads(key), heads(value), mask=text_mask)
            tokens = tokens + gain("gain_cross") * dense(d, name="cross_out")(
                rearrange(mixed, "b l heads c -> b l (heads c)")
            )

        hidden = dense(4 * d, name="mlp_in")(norm(name="norm_mlp")(tokens))
        tokens = tokens + gain("gain_mlp") * dense(d, name="mlp_out")(nn.gelu(hidden, approximate=False))
        return tokens, None


class OfficialDenoiser(nn.Module):
    """The release's transformer with the contract of `nets.denoiser.Denoiser`.

    Attributes:
      code_shape: (y, x, k) of the codes.
      width, depth, heads: of the transformer (`bert_n_emb`, `bert_n_layer`, `bert_n_head`).
      total_steps: the T that the network was trained with. A time t is rounded to the nearest of these T times, so that
        the network only sees times it was trained on, at any number of sampling steps.
      num_classes: classes to condition on, as a token; 0 for none.
      condition_width: features of the condition vector (a token), or of each text token; 0 for none.
      cross_attention: the condition is a sequence of text tokens, of any length, read by cross-attention.
      predict: what the head predicts: `flip`, or `z0`, the log-odds of z_0 (`p_flip` false). The output is flip log-odds
        in both cases.
      official_sample_steps: S > 0 divides times by S instead of T, as the release does when it samples in S steps;
        unless S = T, the network then sees times it was not trained on. 0, the default, is correct.
      dtype: of the computation; parameters and the output are float32.

    Raises:
      ValueError: fields that contradict each other.
    """

    code_shape: tuple[int, int, int]
    width: int = 768
    depth: int = 24
    heads: int = 12
    total_steps: int = 256
    num_classes: int = 0
    condition_width: int = 0
    cross_attention: bool = False
    predict: str = "flip"
    official_sample_steps: int = 0
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.width % self.heads or self.width % 2 or self.width < 4:
            raise ValueError(f"width {self.width} must be a multiple of heads ({self.heads}), even and at least 4")
        if self.total_steps < 1 or self.official_sample_steps < 0:
            raise ValueError(
                f"total_steps is {self.total_steps} (at least 1 is expected) and official_sample_steps "
                f"{self.official_sample_steps} (at least 0)"
            )
        if self.predict not in PREDICTIONS:
            raise ValueError(f"no prediction {self.predict!r}; there are {', '.join(PREDICTIONS)}")
        if self.num_classes and self.condition_width:
            raise ValueError("num_classes and condition_width are both set: condition on classes or on vectors")
        if self.cross_attention and not self.condition_width:
            raise ValueError("cross_attention needs condition_width, the features of a text token")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, code: Bool[Array, "b y x k"], t: Float[Array, "b"], condition: Condition | None = None,
        condition_mask: Bool[Array, "b"] | None = None,
    ) -> Prediction:  # fmt: skip
        """Flip log-odds of z_t, one component; the objective's `parametrization` says what they are conditioned on.

        Args:
          code: z_t.
          t: times in [0, 1].
          condition: with the part that `conditioning` has; or None.
          condition_mask: False drops an example's condition. None keeps all.

        Raises:
          ValueError: a code or a condition of another shape.
        """
        if code.shape[1:] != tuple(self.code_shape):
            raise ValueError(f"codes have shape {code.shape[1:]}; this denoiser takes {tuple(self.code_shape)}")
        (y, x, k), d, b = self.code_shape, self.width, code.shape[0]
        length = y * x
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))

        position = self.param("position", nn.initializers.normal(0.02), (length, d)).astype(self.dtype)
        tokens = dense(d, use_bias=False, name="embed")(signs(code, self.dtype).reshape(b, length, k)) + position[None]

        index = jnp.clip(jnp.round(t * self.total_steps), 1, self.total_steps)
        features = time_features(index, self.official_sample_steps or self.total_steps, d)
        time = nn.Dense(d, name="time_out")(nn.silu(nn.Dense(d, name="time_in")(features)))
        appended = [tokens, time.astype(self.dtype)[:, None]]

        token, text = self._condition(condition, b)
        self_mask = text_mask = None
        if token is not None:
            appended.append(token.astype(self.dtype)[:, None])
            if condition_mask is not None:  # an example without its condition does not attend to that token
                always = jnp.ones((b, length + 1), bool)
                self_mask = jnp.concatenate([always, condition_mask[:, None]], axis=1)[:, None, None]
        if text is not None and (condition_mask is not None or condition.token_mask is not None):
            keep = jnp.ones(b, bool) if condition_mask is None else condition_mask
            valid = jnp.ones(text.shape[:2], bool) if condition.token_mask is None else condition.token_mask
            # either the null token or the text
            text_mask = jnp.concatenate([~keep[:, None], keep[:, None] & valid], axis=1)[:, None, None]
        tokens = jnp.concatenate(appended, axis=1)

        layers = nn.scan(
            OfficialBlock,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            metadata_params={nn.PARTITION_NAME: None},
        )
        text_width = self.condition_width if self.cross_attention else 0
        tokens, _ = layers(d, self.heads, text_width, self.dtype, name="blocks")(tokens, self_mask, text, text_mask)

        tokens = nn.LayerNorm(epsilon=1e-5, name="norm_out")(tokens[:, :length])
        logits = nn.Dense(k, kernel_init=nn.initializers.normal(0.02), name="head")(tokens).reshape(b, y, x, k)
        flips = logits if self.predict == "flip" else jnp.where(code, -logits, logits)
        return Prediction(flips[..., None, :], jnp.zeros((b, y, x, 1)))

    @property
    def conditioning(self) -> Conditioning:
        """What the model is conditioned on, in one place."""
        width = {"token_width" if self.cross_attention else "vector_width": self.condition_width}
        return Conditioning(num_classes=self.num_classes, **width)

    def _condition(self, condition: Condition | None, b: int) -> tuple[Array | None, Array | None]:
        """The condition as one token (b, d), or as text tokens (b, n, condition_width); both None without a condition."""
        wanted = self.conditioning
        if not wanted:
            if condition is not None:
                raise ValueError("a condition was given, but this denoiser was trained without one")
            return None, None
        if condition is None and self.is_initializing() and not self.cross_attention:  # so that its parameters exist
            condition = wanted.absent(b)
        if condition is None:
            return None, None
        wanted.check(condition, b)
        if self.num_classes:
            embed = nn.Embed(self.num_classes, self.width, embedding_init=nn.initializers.normal(0.02), name="classes")
            return embed(condition.label), None
        if self.cross_attention:
            return None, condition.tokens
        return nn.Dense(self.width, dtype=self.dtype, name="condition_in")(condition.vector), None
