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
    """A denoiser's output: a mixture of G products over tokens, in each of which every token is a mixture of C products of
    independent bits (docs/prior.md).

    Attributes:
      logits: (b, …, G·C, k), the log-odds that z_0 differs from z_t, for every component and bit; the C components of a
        token in one of the code lie side by side.
      weights: (b, …, G·C), log-weights of a token's components, up to a constant per token and component of the code.
      code_weights: (b, G), log-weights of the code's components, up to a constant; None for G = 1, independent tokens.
    """

    logits: Array
    weights: Array
    code_weights: Array | None = None


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
