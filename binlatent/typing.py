"""Array types of the public signatures, and the one dictionary of dimension names.

b  examples                      l  tokens of a code, l = y·x
h  image height, pixels          k  bits of a token
w  image width, pixels           d  features (width of a network)
c  image channels                n  tokens of a condition (words of a text)
y  code height, tokens           x  code width, tokens
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Bool, Float, Int, Key, UInt8

Images = Float[Array, "b h w c"]  # in [0, 1]
Code = Bool[Array, "b y x k"]  # the binary latent z
Logits = Float[Array, "b y x k"]  # log-odds, one a bit
Probabilities = Float[Array, "b y x k"]
Times = Float[Array, "b"]  # t in [0, 1]: 0 is data, 1 is noise
PRNGKey = Key[Array, ""]
PyTree = Any

# (code z_t, times t) -> flip log-odds, the condition already bound
Denoise = Callable[[Array, Array], Array]

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
    "Probabilities",
    "PyTree",
    "Times",
    "UInt8",
]
