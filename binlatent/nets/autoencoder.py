"""The binary autoencoder: images → one logit per bit → bits → images.

The encoder and the decoder are lists of layers, which `encoder_layers` and `decoder_layers` derive from the module's
fields. `binlatent convert` reads the same lists, so imported checkpoints use this module too.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from binlatent.nets import binarize, blocks
from binlatent.typing import Array, Code, Float, Images, Logits, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of the encoder or decoder: its parameters' name, its kind, its output channels."""

    name: str
    kind: Literal["conv", "block", "attention", "down", "up", "norm"]
    channels: int


class BinaryAutoencoder(nn.Module):
    """VQGAN-style encoder and decoder around a Bernoulli code. Construct it with keyword arguments.

    Attributes:
      resolution: image height = width, in pixels.
      image_channels: channels of an image.
      channels: base width; level i has `channels * channel_multipliers[i]`.
      channel_multipliers: one per level; the image is halved between levels.
      res_blocks: residual blocks per level in the encoder.
      decoder_multiplier: the decoder has this times `res_blocks` blocks per level, rounded down (the release's
        `gen_mul`); one number, or one per level.
      attention_resolutions: heights in pixels of the feature maps that have attention after each of their blocks.
      code_bits: bits at each position of the encoder's last features.
      token_size: p×p neighbouring positions make one token, of k = code_bits · p² bits. The prior has p² times fewer
        tokens; images are the same. The release has 1.
      embedding_width: channels of the encoder's last features and of the decoder's input.
      norm_first: the decoder starts with a GroupNorm.
      patch_size: s; images enter as (h/s, w/s, c·s²) and the decoder's output is rearranged back. The release has 1.
      deterministic: threshold instead of sampling, even where noise is given.
      signed: the decoder sees ±1 instead of 0/1, and σ(logit) = (1 + tanh u)/2 for the last features u (`use_tanh`).
      dtype: of the computation; statistics of norms, logits, code and output are float32.

    Raises:
      ValueError: fields contradict each other; the message names both values.
    """

    resolution: int
    image_channels: int = 3
    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    decoder_multiplier: float | tuple[float, ...] = 1.0
    attention_resolutions: tuple[int, ...] = (16,)
    code_bits: int = 32
    token_size: int = 1
    embedding_width: int = 256
    norm_first: bool = False
    patch_size: int = 1
    deterministic: bool = False
    signed: bool = False
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        for name in (
            "resolution",
            "image_channels",
            "channels",
            "res_blocks",
            "code_bits",
            "token_size",
            "embedding_width",
            "patch_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.channel_multipliers or min(self.channel_multipliers) < 1:
            raise ValueError(f"channel_multipliers is {self.channel_multipliers}; give one number ≥ 1 a level")
        if self.resolution % self.downsampling:
            raise ValueError(
                f"resolution {self.resolution} is not divisible by {self.downsampling} = patch_size {self.patch_size} × "
                f"2^{len(self.channel_multipliers) - 1} ({len(self.channel_multipliers)} channel_multipliers halve the "
                f"image between levels) × token_size {self.token_size}; change the resolution, the patch_size, the token_size, "
                "or the number of levels"
            )
        levels = [self.resolution // self.patch_size // 2**i for i in range(len(self.channel_multipliers))]
        if unknown := [r for r in self.attention_resolutions if r not in levels]:
            raise ValueError(f"attention_resolutions {unknown} match no level; the levels have heights {levels}")
        if min(self._decoder_blocks) < 1:
            raise ValueError(
                f"decoder_multiplier {self.decoder_multiplier} × res_blocks {self.res_blocks}, rounded down, leaves a "
                "level of the decoder without a block"
            )
        super().__post_init__()

    @property
    def downsampling(self) -> int:
        """Height = width of a token, in pixels."""
        return self.patch_size * 2 ** (len(self.channel_multipliers) - 1) * self.token_size

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """(y, x, k) of one image's code."""
        side = self.resolution // self.downsampling
        return side, side, self.code_bits * self.token_size**2

    @property
    def _decoder_blocks(self) -> list[int]:
        multiplier = self.decoder_multiplier
        if not isinstance(multiplier, tuple):
            multiplier = (multiplier,) * len(self.channel_multipliers)
        if len(multiplier) != len(self.channel_multipliers):
            raise ValueError(
                f"decoder_multiplier has {len(multiplier)} values and channel_multipliers "
                f"{len(self.channel_multipliers)}; give one number, or one per level"
            )
        return [int(m * self.res_blocks) for m in multiplier]

    def setup(self):
        self.encoder = Stack(encoder_layers(self), self.dtype)
        # float32, so that the bits do not depend on the rounding of a bfloat16 product
        self.code_logits = blocks.Conv1x1(self.code_bits, dtype=jnp.float32)
        self.embed = nn.Dense(self.embedding_width, use_bias=False, dtype=self.dtype)
        self.decoder = Stack(decoder_layers(self), self.dtype)

    def encode_features(self, images: Images) -> Float[Array, "b y x d"]:
        """The encoder's last features (b, y, x, embedding_width), float32, of images in [0, 1]."""
        expected = (self.resolution, self.resolution, self.image_channels)
        if images.shape[1:] != expected:
            raise ValueError(
                f"images have (height, width, channels) {images.shape[1:]}; this autoencoder takes {expected}"
            )
        return self.encoder(_space_to_depth(images.astype(self.dtype), self.patch_size))

    def encode(self, images: Images) -> Logits:
        """Log-odds (b, y, x, k), float32, of each bit of images in [0, 1]."""
        logits = _space_to_depth(self.code_logits(self.encode_features(images)), self.token_size)
        return 2 * logits if self.signed else logits  # (1 + tanh u)/2 = σ(2u)

    def decode(self, bits: Float[Array, "b y x k"] | Code) -> Images:
        """Images, float32 and not clipped, of bits (0/1 or bool; may be soft or straight-through)."""
        if bits.shape[1:] != self.code_shape:
            raise ValueError(f"codes have (y, x, k) {bits.shape[1:]}; this autoencoder takes {self.code_shape}")
        x = self.embed(_depth_to_space(binarize.decoder_input(bits, signed=self.signed), self.token_size))
        return _depth_to_space(self.decoder(x), self.patch_size)

    def __call__(
        self, images: Images, noise: Float[Array, "b y x k"] | None = None
    ) -> tuple[Images, Logits, Float[Array, "b y x k"]]:
        """Encode, draw the code, decode.

        Args:
          images: in [0, 1].
          noise: uniform draws in [0, 1), one per bit; None thresholds.

        Returns:
          (reconstruction, not clipped; logits; bits, float 0/1 with straight-through gradients).
        """
        logits = self.encode(images)
        sampled = noise is not None and not self.deterministic
        bits = binarize.bernoulli(logits, noise) if sampled else binarize.threshold(logits)
        return self.decode(bits), logits, bits


def decoder_params(params: PyTree) -> PyTree:
    """Of the autoencoder's parameters those that `decode` uses: the embedding of bits and the decoder."""
    return {name: params[name] for name in ("embed", "decoder")}


def encoder_layers(net: BinaryAutoencoder) -> tuple[Layer, ...]:
    """The encoder's layers in order, numbered as the release's `encoder.blocks`."""
    layers = [Layer(name="conv_in", kind="conv", channels=net.channels)]
    resolution = net.resolution // net.patch_size
    for level, multiplier in enumerate(net.channel_multipliers):
        width = net.channels * multiplier
        layers += _level(f"level{level}", net.res_blocks, width, resolution in net.attention_resolutions)
        if level < len(net.channel_multipliers) - 1:
            layers.append(Layer(name=f"level{level}_down", kind="down", channels=width))
            resolution //= 2
    layers += _middle(width)
    return (
        *layers,
        Layer(name="norm_out", kind="norm", channels=width),
        Layer(name="conv_out", kind="conv", channels=net.embedding_width),
    )


def decoder_layers(net: BinaryAutoencoder) -> tuple[Layer, ...]:
    """The decoder's layers in order, numbered as the release's `generator.blocks`."""
    levels = len(net.channel_multipliers)
    width = net.channels * net.channel_multipliers[-1]
    resolution = net.resolution // net.downsampling * net.token_size
    layers = [Layer(name="norm_in", kind="norm", channels=net.embedding_width)] if net.norm_first else []
    layers += [Layer(name="conv_in", kind="conv", channels=width), *_middle(width)]
    for level in reversed(range(levels)):
        width = net.channels * net.channel_multipliers[level]
        layers += _level(f"level{level}", net._decoder_blocks[level], width, resolution in net.attention_resolutions)
        if level > 0:
            layers.append(Layer(name=f"level{level}_up", kind="up", channels=width))
            resolution *= 2
    return (
        *layers,
        Layer(name="norm_out", kind="norm", channels=width),
        Layer(name="conv_out", kind="conv", channels=net.image_channels * net.patch_size**2),
    )


def _level(name: str, count: int, width: int, attention: bool) -> list[Layer]:
    layers = []
    for i in range(count):
        layers.append(Layer(name=f"{name}_block{i}", kind="block", channels=width))
        if attention:
            layers.append(Layer(name=f"{name}_attention{i}", kind="attention", channels=width))
    return layers


def _middle(width: int) -> list[Layer]:
    return [
        Layer(name="middle_block0", kind="block", channels=width),
        Layer(name="middle_attention", kind="attention", channels=width),
        Layer(name="middle_block1", kind="block", channels=width),
    ]


class Stack(nn.Module):
    """Layers applied in order."""

    layers: tuple[Layer, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        for layer in self.layers:
            match layer.kind:
                case "conv":
                    # bfloat16 near 1 is coarser than half a step of a uint8 image, so the output is float32
                    dtype = jnp.float32 if layer.name == "conv_out" else self.dtype
                    x = blocks.Conv3x3(layer.channels, dtype=dtype, name=layer.name)(x)
                case "block":
                    x = blocks.ResBlock(layer.channels, self.dtype, name=layer.name)(x)
                case "attention":
                    x = blocks.AttentionBlock(self.dtype, name=layer.name)(x)
                case "down":
                    x = blocks.Downsample(self.dtype, name=layer.name)(x)
                case "up":
                    x = blocks.Upsample(self.dtype, name=layer.name)(x)
                case "norm":
                    x = blocks.Norm(self.dtype, name=layer.name)(x)
        return x


def _space_to_depth(x: Float[Array, "b h w c"], s: int) -> Float[Array, "b h2 w2 c2"]:
    return rearrange(x, "b (h s1) (w s2) c -> b h w (s1 s2 c)", s1=s, s2=s)


def _depth_to_space(x: Float[Array, "b h w c"], s: int) -> Float[Array, "b h2 w2 c2"]:
    return rearrange(x, "b h w (s1 s2 c) -> b (h s1) (w s2) c", s1=s, s2=s)
