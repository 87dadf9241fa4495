"""PatchGAN discriminators without statistics of the batch: an image's logits depend on that image alone.

So one device and eight, or one batch and its micro-batches, train the same discriminator. The release's, with
BatchNorm, is in `nets.discriminator`.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from binlatent.nets.blocks import norm_groups
from binlatent.typing import Array, Float, Images

NORMS = ("group", "spectral", "none")


class PatchGAN(nn.Module):
    """Real (positive) or made (negative), one logit a patch of an image.

    3×3 convolution, then `layers` times a 4×4 convolution of stride 2, then a 3×3 one and the logits; LeakyReLU(0.2).

    Attributes:
      channels: of the first convolution; doubled in each of stride 2, up to 8 times.
      layers: convolutions of stride 2; a patch grows with them.
      norm: `group`: GroupNorm after every convolution but the first and last. `spectral`: every kernel is divided by
        its largest singular value, estimated by one power iteration a step; the estimate is kept in the collection
        `batch_stats`, and is a function of the kernel alone. `none`.
      dtype: of the computation; parameters, norm statistics and logits are float32.

    Raises:
      ValueError: an unknown norm.
    """

    channels: int = 64
    layers: int = 3
    norm: Literal["group", "spectral", "none"] = "group"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"no discriminator norm {self.norm!r}; there are {', '.join(NORMS)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Images, *, train: bool = False) -> Float[Array, "b y x 1"]:
        """Logits (b, y, x, 1), float32, of images in [0, 1].

        Args:
          train: move the estimates of `spectral` (`batch_stats` must be mutable); the other norms do not mind.
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
