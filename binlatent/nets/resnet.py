"""ResNet-50 logits, for MaskBit's perceptual loss. Weights are an argument; `binlatent convert-features` makes them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from binlatent.typing import Array, Float

MEAN = (0.485, 0.456, 0.406)  # ImageNet, of images in [0, 1]
DEVIATION = (0.229, 0.224, 0.225)

BLOCKS = (3, 4, 6, 3)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics, which are parameters here because nothing updates them."""

    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.param("mean", nn.initializers.zeros, shape)
        var = self.param("var", nn.initializers.ones, shape)
        factor = scale * jax.lax.rsqrt(var + 1e-5)
        offset = bias - mean * factor
        return (x * factor[None, None, None] + offset[None, None, None]).astype(self.dtype)


class Bottleneck(nn.Module):
    """Convolutions 1×1, 3×3 (with the stride) and 1×1 to four times the width, added to the shortcut."""

    width: int
    stride: int = 1
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def conv_norm(y: Array, channels: int, kernel: int, stride: int, name: str) -> Array:
            y = nn.Conv(
                channels,
                (kernel, kernel),
                strides=stride,
                padding=kernel // 2,
                use_bias=False,
                dtype=self.dtype,
                name=f"conv{name}",
            )(y)
            return FrozenBatchNorm(dtype=self.dtype, name=f"norm{name}")(y)

        y = nn.relu(conv_norm(x, self.width, 1, 1, "1"))
        y = nn.relu(conv_norm(y, self.width, 3, self.stride, "2"))
        y = conv_norm(y, 4 * self.width, 1, 1, "3")
        if x.shape != y.shape:
            x = conv_norm(x, 4 * self.width, 1, self.stride, "_shortcut")
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """ImageNet logits of images in [0, 1], (b, h, w, 3) → (b, 1000) float32: torchvision's network (stride in
    the 3×3 convolution)."""

    num_classes: int = 1000
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b classes"]:
        x = (x.astype(jnp.float32) - jnp.asarray(MEAN)[None, None, None]) / jnp.asarray(DEVIATION)[None, None, None]
        x = nn.Conv(64, (7, 7), strides=2, padding=3, use_bias=False, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(FrozenBatchNorm(dtype=self.dtype, name="norm1")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(BLOCKS, start=1):
            for block in range(blocks):
                x = Bottleneck(
                    width=64 * 2 ** (stage - 1),
                    stride=2 if stage > 1 and block == 0 else 1,
                    dtype=self.dtype,
                    name=f"layer{stage}_{block}",
                )(x)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.num_classes, name="classifier")(x)
