"""Perceptual losses by name: LPIPS (as in the paper), and the squared distance of ResNet-50 logits (as in MaskBit).

Weights are an argument; `weights.load(name)` reads them after `binlatent convert-features NAME`.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from binlatent.nets.resnet import ResNet50
from binlatent.nets.vgg import LPIPS
from binlatent.typing import Array, Float, Images, PyTree

RESNET_SIZE = 224


def lpips(params: PyTree, images: Images, targets: Images, *, dtype: DTypeLike = jnp.float32) -> Float[Array, "b"]:
    """LPIPS between images in [0, 1], on VGG16; the convolutions compute in `dtype`."""
    return LPIPS(dtype=dtype).apply({"params": params}, images, targets)


def resnet50(params: PyTree, images: Images, targets: Images, *, dtype: DTypeLike = jnp.float32) -> Float[Array, "b"]:
    """Mean squared difference of ImageNet logits between images in [0, 1] (MaskBit, Weber et al. 2024).

    Images are resized to 224×224 pixels, bilinearly and with antialiasing.
    """

    def logits(x: Array) -> Array:
        shape = (x.shape[0], RESNET_SIZE, RESNET_SIZE, x.shape[-1])
        return ResNet50(dtype=dtype).apply({"params": params}, jax.image.resize(x, shape, "linear", antialias=True))

    return jnp.square(logits(images) - logits(targets)).mean(-1)


# By name of the feature network, which is also the name of the loss term.
LOSSES: Mapping[str, Callable[..., Array]] = {"lpips": lpips, "resnet50": resnet50}
