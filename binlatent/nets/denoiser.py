"""The denoiser: a diffusion transformer over the tokens of a code, giving leave-one-out log-odds of its bits.

A code is a mixture of products over tokens, and in each of its components a token is a mixture of products over bits
(docs/prior.md), so that bits can be drawn jointly in one step; with one component they are independent. Components are
predicted as log-odds of z_0 = 1 and turned by the sign of z_t, so that one means the same whatever z_t is.

Blocks are pre-norm with adaLN-zero modulation (Peebles and Xie, 2023). One modulation network is shared by all blocks and
each block adds offsets of its own (Chen et al., 2023, PixArt-α), so that parameters stay near the release's instead of
growing by 6·d² a block. Layers are scanned, so compile time does not depend on the depth; on CPUs, few layers are unrolled.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from binlatent.bits import signs
from binlatent.mesh import constrain_batch, constrain_tokens, context_size, platform
from binlatent.nets.attention import attend
from binlatent.nets.condition import Condition, Conditioning
from binlatent.nets.embedding import ConditionEmbedding, Embedded
from binlatent.nets.positions import grid_positions, rotary_angles, rotate
from binlatent.typing import Array, Bool, Float, Prediction

DType = jax.typing.DTypeLike

REMAT_POLICIES = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

# On CPUs, up to so many layers are unrolled: XLA copies what a loop carries and stacks, a fifth of a step (docs/throughput.md).
UNROLLED_ON_CPU = 12


def time_features(t: Float[Array, "b"], width: int) -> Float[Array, "b d"]:
    """Sines and cosines of t, frequencies from 1 to 10,000 radians over t in [0, 1]."""
    frequencies = jnp.exp(jnp.linspace(0.0, math.log(10_000.0), width // 2))
    angles = t[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def gated_width(width: int, mlp_ratio: float) -> int:
    """Units of a gated layer with about the operations of a plain one of mlp_ratio · width: two thirds, in multiples of 64."""
    return max(round(mlp_ratio * width * 2 / 3 / 64), 1) * 64


class Block(nn.Module):
    """One transformer block, with rotary positions and SwiGLU (Shazeer, 2020). Tokens travel as (b·l, d), as XLA's
    gradients of matrix products like two axes best, or as (b, l, d), as they can be sharded over the mesh's context.

    Attributes:
      grid: (y, x) of the tokens.
    """

    grid: tuple[int, int]
    width: int
    heads: int
    mlp_ratio: float
    cross_attention: bool
    dtype: DType

    @nn.compact
    def __call__(
        self, tokens: Array, modulation: Array, text: Array | None, text_mask: Array | None
    ) -> tuple[Array, None]:
        d, b = self.width, modulation.shape[0]
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        norm = partial(nn.LayerNorm, dtype=self.dtype, use_bias=False, use_scale=False, epsilon=1e-6)
        offsets = self.param("offsets", nn.initializers.zeros, (6, d))
        modulation = (modulation + offsets[None]).astype(self.dtype)[
            :, :, None
        ]  # (b, 6, 1, d): per example, all tokens
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.moveaxis(modulation, 1, 0)

        def modulate(x, shift, scale):
            x = norm()(x).reshape(b, -1, d)
            return (x * (1 + scale) + shift).reshape(tokens.shape)

        def gated(x, gate):
            return (x.reshape(b, -1, d) * gate).reshape(tokens.shape)

        def heads(x, parts):
            """(b·l, d · parts) or (b, l, d · parts) → so many (b, l, heads, d / heads). A head's parts lie side by side, so
            that dividing the columns over the mesh's tensor axis keeps every head in one place."""
            x = x.reshape(b, -1, self.heads, parts, d // self.heads)
            return [x[:, :, :, i] for i in range(parts)]

        projected = constrain_tokens(dense(3 * d, name="query_key_value")(modulate(tokens, shift_1, scale_1)))
        query, key, value = heads(projected, 3)
        angles = rotary_angles(*self.grid, d // self.heads)
        query, key = rotate(query, angles), rotate(key, angles)
        mixed = constrain_tokens(attend(query, key, value).reshape(tokens.shape))
        tokens = constrain_tokens(tokens + gated(dense(d, name="attention_out")(mixed), gate_1))

        if self.cross_attention:
            query = dense(d, name="cross_query")(norm(name="cross_norm")(tokens))
            read = dense(2 * d, name="cross_key_value")(text.reshape(-1, text.shape[-1]))
            mixed = constrain_tokens(attend(*heads(query, 1), *heads(read, 2), text_mask).reshape(tokens.shape))
            # zero at first, as the gates are: a block starts as the identity
            tokens = tokens + nn.Dense(d, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="cross_out")(mixed)

        x, size = modulate(tokens, shift_2, scale_2), gated_width(d, self.mlp_ratio)
        hidden = nn.silu(dense(size, name="mlp_gate")(x)) * dense(size, name="mlp_in")(x)
        tokens = tokens + gated(dense(d, name="mlp_out")(constrain_tokens(hidden)), gate_2)
        return constrain_tokens(tokens), None


class Denoiser(nn.Module):
    """Estimates which bits of a noised code are flipped.

    Attributes:
      code_shape: (y, x, k) of the codes.
      width, depth, heads, mlp_ratio: of the transformer; its gated layers have two thirds of mlp_ratio · width units, so that
        they cost as much as a plain layer of that ratio.
      components: C of the mixture of a token's bits; 1 for independent bits.
      code_components: G of the mixture of whole codes, each with C components a token; 1 for independent tokens.
      conditioning: what it is conditioned on. Classes and vectors are added to the time embedding, tokens of a text are
        read by cross-attention.
      text_depth: layers of the text tower, where texts come as numbers of words.
      remat: what to recompute in the backward pass: `none`, `full` (everything) or `dots` (all but matrix products).
      dtype: of the computation; parameters and the output are float32.

    Raises:
      ValueError: numbers that do not fit together.
    """

    code_shape: tuple[int, int, int]
    width: int = 768
    depth: int = 24
    heads: int = 12
    mlp_ratio: float = 4.0
    components: int = 8
    code_components: int = 1
    conditioning: Conditioning = Conditioning()
    text_depth: int = 2
    remat: str = "none"
    dtype: DType = jnp.float32

    def __post_init__(self):
        for name in ("width", "depth", "heads", "components", "code_components"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is expected")
        if self.mlp_ratio <= 0:
            raise ValueError(f"mlp_ratio is {self.mlp_ratio}: a positive number is expected")
        if self.width % (4 * self.heads):
            raise ValueError(f"width is {self.width}: a multiple of 4 × heads ({self.heads}) is expected")
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"no remat policy {self.remat!r}; there are {', '.join(REMAT_POLICIES)}")
        if self.text_depth < 1:
            raise ValueError(f"text_depth is {self.text_depth}: at least 1 is expected")
        super().__post_init__()

    def setup(self):
        self.condition_embedding = ConditionEmbedding(
            self.conditioning, self.width, self.heads, self.text_depth, self.dtype
        )
        nn.share_scope(self, self.condition_embedding)

    def embed_condition(self, condition: Condition, condition_mask: Bool[Array, "b"] | None = None) -> Embedded:
        """The part of `__call__` that sees the condition alone, to be computed once for many calls."""
        return self.condition_embedding(condition, condition_mask, jax.tree.leaves(condition)[0].shape[0])

    @nn.compact
    def __call__(
        self, code: Bool[Array, "b y x k"], t: Float[Array, "b"], condition: Condition | Embedded | None = None,
        condition_mask: Bool[Array, "b"] | None = None,
    ) -> Prediction:  # fmt: skip
        """Leave-one-out flip log-odds g of z_t, with the weights of the mixture's components.

        Args:
          code: z_t.
          t: times in [0, 1].
          condition: with all parts that `conditioning` has, or what `embed_condition` gave. None is the learned null
            condition for all.
          condition_mask: False replaces an example's condition by the null. None replaces none. Not used with an embedded
            condition, which has it in it.

        Raises:
          ValueError: a code or a condition of another shape.
        """
        if code.shape[1:] != tuple(self.code_shape):
            raise ValueError(f"codes of shape {code.shape[1:]} given to a denoiser of {tuple(self.code_shape)} codes")
        (y, x, k), d, b = self.code_shape, self.width, code.shape[0]
        small = nn.initializers.normal(0.02)
        dense = partial(nn.Dense, dtype=self.dtype)

        position = self.param("position", lambda _: grid_positions(y, x, d))
        rows = (b, y * x) if context_size() > 1 else (b * y * x,)  # of tokens, see `Block`
        tokens = dense(d, use_bias=False, name="embed")(signs(code, self.dtype).reshape(*rows, k))
        tokens = constrain_tokens((tokens.reshape(b, y * x, d) + position.astype(self.dtype)[None]).reshape(*rows, d))

        # times change little between steps: features and the modulation stay in float32
        features = time_features(t, 256)
        context = nn.Dense(d, name="time_out")(nn.silu(nn.Dense(d, kernel_init=small, name="time_in")(features)))
        if not isinstance(condition, Embedded):
            condition = self.condition_embedding(condition, condition_mask, b)
        if condition.vector is not None:
            context = context + condition.vector
        context = constrain_batch(nn.silu(context))
        zeros = nn.initializers.zeros
        modulation = constrain_batch(nn.Dense(6 * d, kernel_init=zeros, name="modulation")(context)).reshape(b, 6, d)

        block = Block
        if self.remat != "none":
            block = nn.remat(Block, prevent_cse=False, policy=REMAT_POLICIES[self.remat])
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=self.depth if platform() == "cpu" and self.depth <= UNROLLED_ON_CPU else 1,
            metadata_params={nn.PARTITION_NAME: None},
        )
        tokens, _ = layers(
            (y, x), self.width, self.heads, self.mlp_ratio, self.conditioning.texts, self.dtype, name="blocks"
        )(tokens, modulation, condition.text, condition.text_mask)

        shift, scale = jnp.split(
            nn.Dense(2 * d, kernel_init=zeros, name="modulation_out")(context)[:, None], 2, axis=-1
        )
        tokens = nn.LayerNorm(use_bias=False, use_scale=False, epsilon=1e-6)(tokens).reshape(b, y * x, d)
        tokens = (tokens * (1 + scale) + shift).reshape(*rows, d).astype(self.dtype)
        # components that start equal would stay so
        num = self.code_components * self.components
        bias = nn.initializers.normal(0.5) if num > 1 else zeros
        ones = dense(num * k, kernel_init=zeros, bias_init=bias, name="bits")(tokens)
        ones = ones.astype(jnp.float32).reshape(b, y, x, num, k)  # log-odds of z_0 = 1
        weights, code_weights = jnp.zeros((b, y, x, num)), None
        if self.components > 1:
            weights = dense(num, kernel_init=zeros, name="weights")(tokens).astype(jnp.float32).reshape(b, y, x, num)
        if self.code_components > 1:
            mean = tokens.reshape(b, y * x, d).mean(1)
            code_weights = dense(self.code_components, kernel_init=zeros, name="code_weights")(mean).astype(jnp.float32)
        return Prediction(jnp.where(code[..., None, :], -ones, ones), weights, code_weights)
