"""What the page may ask for, with its limits, and how a picture travels."""

import base64
import binascii
import dataclasses
import io
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from binlatent.config import check_values
from binlatent.errors import UserError
from binlatent.images import to_uint8

Kind = Literal["sample", "inpaint", "vary", "interpolate"]
PICTURES = {"sample": (), "inpaint": ("picture", "mask"), "vary": ("picture",), "interpolate": ("picture", "second")}
# (least, most) of each number: a stranger's request shall not keep the others waiting for long
LIMITS = {
    "num": (1, 64),
    "seed": (0, 2**32 - 1),
    "steps": (1, 256),
    "guidance": (-20, 20),
    "temperature": (0.01, 10),
    "strength": (0, 1),
    "passes": (1, 16),
}
LARGEST_UPLOAD = 12 * 2**20  # bytes of a request; pictures travel as base64, a third larger than their files
LONGEST_PROMPT = 1000  # characters
PREFIX = "data:image/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to make.

    Attributes:
      kind: what to do.
      num: images to make.
      label: a class by number or name; empty for all in turn (sample) or none (the others).
      prompt, negative_prompt: what the images show, and what guidance leads away from; empty for neither.
      strength: of a variation: 0 returns the reconstruction, 1 a fresh sample.
      passes: of each step of inpainting.
      picture, second: data URLs of pictures of the model's size.
      mask: the same, bright where pixels are to be made.

    Raises:
      UserError: a number out of its limits, a prompt of spaces or too long, or a picture missing.
    """

    kind: Kind
    num: int = 4
    seed: int = 0
    label: str = ""
    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 16
    guidance: float = 0.0
    temperature: float = 1.0
    strength: float = 0.5
    passes: int = 1
    picture: str = ""
    second: str = ""
    mask: str = ""

    def __post_init__(self):
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise UserError(f"{name} is {value}: a number from {least:,} to {most:,} is expected")
        for name in ("prompt", "negative_prompt"):
            text = getattr(self, name)
            if text.isspace():
                raise UserError(f"{name} is empty: a sentence is expected")
            if len(text) > LONGEST_PROMPT:
                raise UserError(f"{name} has {len(text):,} characters: at most {LONGEST_PROMPT:,} are taken")
        if missing := [name for name in PICTURES[self.kind] if not getattr(self, name)]:
            raise UserError(f"{self.kind} needs a {missing[0]}: choose one")

    @classmethod
    def read(cls, values: Any) -> "Request":
        """The request of a JSON object.

        Raises:
          UserError: it is none, or holds unknown names, values of other types or out of limits.
        """
        if not isinstance(values, Mapping) or values.get("kind") not in get_args(Kind):
            raise UserError(f"a JSON object is expected whose kind is one of {', '.join(get_args(Kind))}")
        check_values("request", cls, values)
        if empty := [name for name, value in values.items() if value is None]:
            raise UserError(f"{empty[0]} has no value")
        floats = {
            field.name for field in dataclasses.fields(cls) if field.type is float
        }  # JSON's 1 may be meant as 1.0
        return cls(**{name: float(value) if name in floats else value for name, value in values.items()})


def to_url(image: np.ndarray) -> str:
    """An image (h, w, c), uint8 or float in [0, 1], as the data URL of a PNG file."""
    from PIL import Image

    image, file = to_uint8(image), io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def from_url(name: str, text: str, resolution: int, channels: int) -> np.ndarray:
    """The centre square of an uploaded picture, uint8 (resolution, resolution, channels).

    Raises:
      UserError: no data URL of an image, or an image that cannot be decoded or is too large.
    """
    from binlatent.data.decode import decode_image
    from binlatent.data.transforms import cut_square, to_channels

    head, separator, body = text.partition(";base64,")
    if not head.startswith(PREFIX) or not separator:
        raise UserError(f"the {name} is no image file")
    try:
        image = decode_image(base64.b64decode(body, validate=True), resolution)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"the {name} cannot be read: {error}") from error
    return np.ascontiguousarray(cut_square(to_channels(image, channels), resolution, 0.5))


def bits_picture(code: np.ndarray) -> np.ndarray:
    """A code (y, x, k) as a picture, uint8: each token a rectangle of its bits, white for 1."""
    y, x, k = code.shape
    columns = math.ceil(math.sqrt(k))
    rows = math.ceil(k / columns)
    cells = np.full((y, x, rows * columns), 128, np.uint8)
    cells[..., :k] = np.where(code, 255, 0)
    cells = np.pad(cells.reshape(y, x, rows, columns), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=128)
    return cells.transpose(0, 2, 1, 3).reshape(y * (rows + 1), x * (columns + 1), 1)
