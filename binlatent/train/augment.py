"""Differentiable augmentation of the discriminator's input (Zhao et al. 2020), which keeps it from memorising the
training images.

Real and fake images are augmented alike, and gradients flow through the augmentation. Every example has its own key.
"""

import dataclasses

import jax
import jax.numpy as jnp

from binlatent.typing import Array, Images, Key, PRNGKey


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The augmentations and their strengths; 0 switches one off.

    Attributes:
      color: s; brightness changes by up to ± s/2, saturation by a factor in 1 ± s, contrast by a factor in 1 ± s/2.
      translation: the largest shift, as a fraction of height and width; vacated pixels are grey.
      cutout: side of a grey square, as a fraction of height and width.

    Raises:
      ValueError: a value outside [0, 1].
    """

    color: float | int = 0.0
    translation: float | int = 0.0
    cutout: float | int = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise ValueError(f"augmentation {field.name} is {getattr(self, field.name)}, expected 0 (off) to 1")

    def __call__(self, keys: Key[Array, "b"], images: Images) -> Images:
        """The augmented images, which may exceed [0, 1]."""
        if not (self.color or self.translation or self.cutout):
            return images
        return jax.vmap(self._one)(keys, images)

    def _one(self, key: PRNGKey, image: Array) -> Array:
        keys = [jax.random.fold_in(key, i) for i in range(3)]
        x = image - 0.5  # so that 0 is grey
        if self.color:
            x = _color(keys[0], x, self.color)
        if self.translation:
            x = _translate(keys[1], x, self.translation)
        if self.cutout:
            x = _cut_out(keys[2], x, self.cutout)
        return x + 0.5


def _color(key: PRNGKey, x: Array, strength: float) -> Array:
    brightness, saturation, contrast = strength * jax.random.uniform(key, (3,), minval=-1, maxval=1)
    x = x + 0.5 * brightness
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * (1 + saturation)
    mean = x.mean(keepdims=True)
    return mean + (x - mean) * (1 + 0.5 * contrast)


def _translate(key: PRNGKey, x: Array, ratio: float) -> Array:
    h, w, c = x.shape
    reach = (round(h * ratio), round(w * ratio))
    padded = jnp.pad(x, ((reach[0], reach[0]), (reach[1], reach[1]), (0, 0)))
    start = jax.random.randint(key, (2,), 0, 2 * jnp.array(reach) + 1)
    return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), (h, w, c))


def _cut_out(key: PRNGKey, x: Array, ratio: float) -> Array:
    inside = True
    for axis, key_axis in enumerate(jax.random.split(key)):
        side, size = x.shape[axis], round(x.shape[axis] * ratio)
        # the square may overlap the edge by half its side, so that borders are cut as often as the middle
        start = jax.random.randint(key_axis, (), 0, side + 1) - size // 2
        position = jnp.arange(side)
        shape = [1, 1, 1]
        shape[axis] = side
        inside = inside & ((position >= start) & (position < start + size)).reshape(shape)
    return jnp.where(inside, 0.0, x)
