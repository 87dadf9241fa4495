"""The release's discriminator: PatchGAN with BatchNorm, for imported checkpoints and for fine-tuning them."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from binlatent.typing import Array, Float, Images


class PatchDiscriminator(nn.Module):
    """Classifies patches of an image as real (positive logits) or fake (negative).

    4×4 convolutions with LeakyReLU(0.2): `layers` of stride 2, then two of stride 1. BatchNorm (eps 1e-5, momentum 0.9,
    PyTorch's) keeps running statistics in the collection `batch_stats`.

    Attributes:
      channels: of the first convolution (`ndf`); doubled in each later one, up to 8 times.
      layers: convolutions of stride 2 (`disc_layers`).
      dtype: of the computation; parameters, statistics and logits are float32.
    """

    channels: int = 64
    layers: int = 3
    dtype: DTypeLike = jnp.float32

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of every convolution but the last."""
        return tuple(self.channels * min(2**i, 8) for i in range(self.layers + 1))

    @nn.compact
    def __call__(self, images: Images, *, train: bool = False) -> Float[Array, "b y x 1"]:
        """Logits (b, y, x, 1) of images in [0, 1].

        Args:
          train: normalise with the batch's statistics and update the running ones (`batch_stats` must be mutable).
        """
        x = images
        for i, width in enumerate(self.widths):
            x = nn.Conv(
                width,
                (4, 4),
                strides=2 if i < self.layers else 1,
                padding=((1, 1), (1, 1)),
                use_bias=i == 0,  # BatchNorm has one
                kernel_init=nn.initializers.normal(0.02),
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            if i > 0:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype, name=f"norm{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        last = nn.Conv(1, (4, 4), padding=((1, 1), (1, 1)), kernel_init=nn.initializers.normal(0.02), name="conv_out")
        return last(x)
