"""The convolutional blocks of the autoencoder: VQGAN's, with the padding and eps of the PyTorch release."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax.typing import DTypeLike

from binlatent.typing import Array, Float

Features = Float[Array, "b h w c"]

# PyTorch's initialisation of convolutions, as in the release
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

Conv = functools.partial(nn.Conv, kernel_init=kernel_init)
Conv3x3 = functools.partial(Conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)))
Conv1x1 = functools.partial(Conv, kernel_size=(1, 1))


def norm_groups(channels: int) -> int:
    """Groups of a GroupNorm: 32 as in the release, or else the largest smaller divisor of `channels`."""
    return max(n for n in range(1, 33) if channels % n == 0)


class Norm(nn.Module):
    """GroupNorm with statistics in float32, eps 1e-6; the output has `dtype`."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        return nn.GroupNorm(norm_groups(x.shape[-1]), epsilon=1e-6, dtype=self.dtype, name="group_norm")(x)


class ResBlock(nn.Module):
    """Norm, SiLU and 3×3 convolution, twice, added to the input (a 1×1 convolution of it where the width changes)."""

    channels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b h w c2"]:
        y = nn.silu(Norm(self.dtype, name="norm1")(x))
        y = Conv3x3(self.channels, dtype=self.dtype, name="conv1")(y)
        y = nn.silu(Norm(self.dtype, name="norm2")(y))
        y = Conv3x3(self.channels, dtype=self.dtype, name="conv2")(y)
        if x.shape[-1] != self.channels:
            x = Conv1x1(self.channels, dtype=self.dtype, name="shortcut")(x)
        return x + y


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions, added to the input."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        _, h, _, c = x.shape
        y = Norm(self.dtype, name="norm")(x)
        query, key, value = (
            rearrange(Conv1x1(c, dtype=self.dtype, name=name)(y), "b h w c -> b (h w) 1 c")
            for name in ("query", "key", "value")
        )
        y = rearrange(jax.nn.dot_product_attention(query, key, value), "b (h w) 1 c -> b h w c", h=h)
        return x + Conv1x1(c, dtype=self.dtype, name="out")(y)


class Downsample(nn.Module):
    """Halves height and width: a 3×3 convolution of stride 2, padded at the bottom and right only."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b h2 w2 c"]:
        return Conv(
            x.shape[-1], kernel_size=(3, 3), strides=2, padding=((0, 1), (0, 1)), dtype=self.dtype, name="conv"
        )(x)


class Upsample(nn.Module):
    """Doubles height and width: nearest neighbour, then a 3×3 convolution."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b h2 w2 c"]:
        x = repeat(x, "b h w c -> b (h two) (w also_two) c", two=2, also_two=2)
        return Conv3x3(x.shape[-1], dtype=self.dtype, name="conv")(x)
