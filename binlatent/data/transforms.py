"""From an image of any size to a square at the config's resolution, one uint8 example at a time."""

import dataclasses

import numpy as np
import PIL.Image

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL converts


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Converts uint8 (h, w, 1 | 3 | 4) to `channels` (1 or 3). A fourth channel is opacity, composited over white."""
    if image.shape[-1] == 4:
        opacity = image[..., 3:].astype(np.uint32)
        image = ((image[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return np.round(image @ LUMA).astype(np.uint8)[..., None]


def cut_square(image: np.ndarray, resolution: int, position: float) -> np.ndarray:
    """Crops the largest square and resizes it to `resolution`, bicubic and antialiased.

    Args:
      image: uint8 (h, w, c).
      resolution: height = width of the result, in pixels.
      position: of the square along the longer side: 0 first, 0.5 centre, 1 last.
    """
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (int(position * (size - side) + 0.5) for size in (height, width))
    image = image[top : top + side, left : left + side]
    if side == resolution:
        return image
    picture = PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(picture.resize((resolution, resolution), PIL.Image.Resampling.BICUBIC))
    return resized.reshape(resolution, resolution, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalImage:
    """The centre crop at `resolution`, uint8 (resolution, resolution, channels)."""

    resolution: int
    channels: int

    def __call__(self, example: dict) -> dict:
        image = cut_square(to_channels(example["image"], self.channels), self.resolution, 0.5)
        return {**without(example, "caption"), "image": np.ascontiguousarray(image)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainImage:
    """A random or centre crop at `resolution`; with `flip`, mirrored with probability one half."""

    resolution: int
    channels: int
    crop: str
    flip: bool

    def __call__(self, example: dict, rng: np.random.Generator) -> dict:
        position, coin = rng.random(2)  # always both, so that one option does not change the other's draws
        image = to_channels(example["image"], self.channels)
        image = cut_square(image, self.resolution, position if self.crop == "random" else 0.5)
        if self.flip and coin < 0.5:
            image = image[:, ::-1]
        # an autoencoder does not use the prior's conditions
        return {**without(example, "condition", "caption"), "image": np.ascontiguousarray(image)}


@dataclasses.dataclass(frozen=True)
class DrawCode:
    """Draws one of an image's codes, and one of its captions, anew in every epoch."""

    def __call__(self, example: dict, rng: np.random.Generator) -> dict:
        result = named_condition(without(example, "views"))
        if "views" in example and (choice := rng.integers(1 + len(example["views"]))):
            result["code"] = example["views"][choice - 1]
        if "caption" in example:
            result["caption"] = rng.choice(example["caption"])
        return result


def plain_code(example: dict) -> dict:
    """The image's first code with its first caption; deterministic."""
    result = named_condition(without(example, "views"))
    if "caption" in example:
        result["caption"] = example["caption"][0]
    return result


def named_condition(example: dict) -> dict:
    """An example whose `condition` has the name that `nets.condition.Condition` gives it: (d,) a `vector`, (n, d) `tokens`."""
    if "condition" not in example:
        return example
    condition = example["condition"]
    return without(example, "condition") | {"vector" if condition.ndim == 1 else "tokens": condition}


def without(example: dict, *names: str) -> dict:
    """A copy of an example without the named values."""
    return {name: value for name, value in example.items() if name not in names}
