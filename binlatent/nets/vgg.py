"""VGG16 features, and the LPIPS distance between them. Weights are an argument; `binlatent convert-features` makes them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from binlatent.typing import Array, Float, Images

# Channels and convolutions of each of the five stages; a stage ends in the features LPIPS compares.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

# LPIPS's own normalisation of images in [-1, 1]: not quite ImageNet's mean and deviation, and part of its definition.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class VGG16(nn.Module):
    """The convolutional part of VGG16: features after relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Takes images that are already normalised, (b, h, w, 3); returns five arrays (b, h // 2^i, w // 2^i, channels) in
    `dtype`.
    """

    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Array, ...]:
        if min(x.shape[1:3]) < 16:
            raise ValueError(f"VGG16 halves its input four times and needs at least 16×16 pixels, got {x.shape[1:3]}")
        features = []
        for stage, (channels, convolutions) in enumerate(STAGES, start=1):
            if features:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))  # an odd last row or column is dropped, as in torch
            for conv in range(1, convolutions + 1):
                x = nn.relu(nn.Conv(channels, (3, 3), padding=1, dtype=self.dtype, name=f"conv{stage}_{conv}")(x))
            features.append(x)
        return tuple(features)


def _unit(features: Array) -> Array:
    """Features scaled to length 1 over channels, in float32; a zero vector stays zero and has gradient zero, not
    NaN."""
    features = features.astype(jnp.float32)
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    positive = squares > 0
    length = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
    return features / (length + 1e-10)


class LPIPS(nn.Module):
    """The learned perceptual distance of Zhang et al. (2018), version 0.1, VGG16: 0 for equal images.

    Takes two sets of images in [0, 1], (b, h, w, 3); returns (b,) float32. The linear heads are parameters `lin0` …
    `lin4`. The convolutions compute in `dtype`, the distance itself in float32.
    """

    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images, targets: Images) -> Float[Array, "b"]:
        vgg = VGG16(dtype=self.dtype, name="vgg")

        def features(x: Array) -> tuple[Array, ...]:
            return vgg(
                (2 * x.astype(jnp.float32) - 1 - jnp.asarray(SHIFT)[None, None, None])
                / jnp.asarray(SCALE)[None, None, None]
            )

        total = jnp.zeros(images.shape[0], jnp.float32)
        for level, (a, b) in enumerate(zip(features(images), features(targets), strict=True)):
            head = self.param(f"lin{level}", nn.initializers.ones, (a.shape[-1],))
            total = total + jnp.mean(jnp.einsum("bhwd,d->bhw", jnp.square(_unit(a) - _unit(b)), head), axis=(1, 2))
        return total
