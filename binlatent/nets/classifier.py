"""A small classifier whose last hidden layer gives features: for labelled data where no pretrained network is at hand."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from binlatent.typing import Array, Float, Images


@flax.struct.dataclass
class ClassifierOutput:
    features: Float[Array, "b f"]
    logits: Float[Array, "b k"]


class FeatureClassifier(nn.Module):
    """Three stages of convolutions, each halving the image, then average pooling and a hidden layer.

    Attributes:
      num_classes: number of classes.
      width: channels of the first stage; doubled in each later one.
      num_features: size of the hidden layer, the features.
      dtype: of the computation; parameters, normalisation statistics and the result are float32.
    """

    num_classes: int
    width: int = 32
    num_features: int = 128
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Images) -> ClassifierOutput:
        """Features and logits of images in [0, 1], at least 8×8 pixels."""
        x = (2 * images - 1).astype(self.dtype)
        for stage in range(3):
            channels = self.width * 2**stage
            for stride in (1, 2):
                x = nn.Conv(channels, (3, 3), (stride, stride), use_bias=False, dtype=self.dtype)(x)
                x = nn.gelu(nn.GroupNorm(min(8, channels), dtype=self.dtype)(x))
        features = nn.tanh(nn.Dense(self.num_features, dtype=self.dtype)(x.mean((1, 2)))).astype(jnp.float32)
        return ClassifierOutput(features=features, logits=nn.Dense(self.num_classes)(features))
