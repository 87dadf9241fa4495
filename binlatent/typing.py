"""Array types of the public signatures, and the names of their dimensions.

b  examples                      l  tokens of a code, l = y·x
h  image height, pixels          k  bits of a token
w  image width, pixels           d  features (width of a network)
c  image channels                n  tokens of a condition (words of a text)
y  code height, tokens           x  code width, tokens
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Key, UInt8, UInt32

Images = Float[Array, "b h w c"]  # in [0, 1]
Code = Bool[Array, "b y x k"]  # the binary latent z
Logits = Float[Array, "b y x k"]  # log-odds, one per bit
Probabilities = Float[Array, "b y x k"]
Times = Float[Array, "b"]  # t in [0, 1]: 0 is data, 1 is noise
PRNGKey = Key[Array, ""]
PyTree = Any


class Prediction(NamedTuple):
    """A denoiser's output: for every token, a mixture of C products of independent bits (docs/prior.md).

    Attributes:
      logits: (b, …, C, k), the log-odds that z_0 differs from z_t, for every component and bit.
      weights: (b, …, C), log-weights of the components, up to a constant per token; irrelevant if C = 1.
    """

    logits: Array
    weights: Array


# (code z_t, times t) -> prediction, for a fixed condition
Denoise = Callable[[Array, Array], Prediction]

__all__ = [
    "Array",
    "Bool",
    "Code",
    "Denoise",
    "Float",
    "Images",
    "Int",
    "Key",
    "Logits",
    "PRNGKey",
    "Prediction",
    "Probabilities",
    "PyTree",
    "Times",
    "UInt8",
    "UInt32",
]
