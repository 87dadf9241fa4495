"""PatchGAN discriminators without batch statistics: an image's logits depend on that image alone.

Training is therefore the same on one device or eight, with or without micro-batches. The release's discriminator, with
BatchNorm, is `nets.official_discriminator`.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from binlatent.nets.blocks import norm_groups
from binlatent.typing import Array, Float, Images

NORMS = ("group", "spectral", "none")


class PatchGAN(nn.Module):
    """Classifies patches of an image as real (positive logits) or fake (negative).

    A 3×3 convolution, `layers` 4×4 convolutions of stride 2, a 3×3 convolution, then the logits; LeakyReLU(0.2).

    Attributes:
      channels: of the first convolution; doubled in each later one, up to 8 times.
      layers: convolutions of stride 2; more of them make the patches larger.
      norm: `group`: GroupNorm after every convolution but the first and last. `spectral`: every kernel is divided by
        its largest singular value, estimated by one power iteration per step; the estimate depends on the kernel alone
        and is kept in the collection `batch_stats`. `none`: no normalisation.
      dtype: of the computation; parameters, norm statistics and logits are float32.

    Raises:
      ValueError: an unknown norm, or a number out of range.
    """

    channels: int = 64
    layers: int = 3
    norm: Literal["group", "spectral", "none"] = "group"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"no discriminator norm {self.norm!r}; there are {', '.join(NORMS)}")
        if self.channels < 1 or self.layers < 0:
            raise ValueError(f"channels is {self.channels} and layers {self.layers}: at least 1 and 0 are expected")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool = False) -> Float[Array, "b y x 1"]:
        """Logits (b, y, x, 1), float32, of images in [0, 1].

        Args:
          train: update the estimates of `spectral` (`batch_stats` must be mutable); no effect with other norms.
        """

        def conv(x: Array, width: int, kernel: int, stride: int, name: str, dtype: DTypeLike = self.dtype) -> Array:
            layer = nn.Conv(
                width,
                (kernel, kernel),
                strides=stride,
                padding=((1, 1), (1, 1)),
                dtype=dtype,
                kernel_init=nn.initializers.normal(0.02),
                name=name,
            )
            if self.norm == "spectral":
                return nn.SpectralNorm(layer, collection_name="batch_stats", name=f"{name}_spectral")(
                    x, update_stats=train
                )
            return layer(x)

        x = nn.leaky_relu(conv(2 * images.astype(self.dtype) - 1, self.channels, 3, 1, "conv_in"), 0.2)
        for i in range(self.layers + 1):
            down = i < self.layers
            x = conv(x, self.channels * min(2 ** (i + 1), 8), 4 if down else 3, 2 if down else 1, f"conv{i}")
            if self.norm == "group":
                x = nn.GroupNorm(norm_groups(x.shape[-1]), epsilon=1e-6, dtype=self.dtype, name=f"norm{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        return conv(x, 1, 3, 1, "conv_out", jnp.float32)
