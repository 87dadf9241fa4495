"""Inpainting and outpainting: pictures completed where pixels are not known."""

import dataclasses
import numbers
from typing import Any

import numpy as np

from binlatent.editing.known import check_mask, known_code, paste
from binlatent.errors import UserError
from binlatent.images import to_float
from binlatent.pipeline import Pipeline

LARGEST_CANVAS = 2**24  # pixels
FILLINGS = 8  # samples that show which bits depend on unknown pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completed:
    """Completed pictures.

    Attributes:
      images: float (b, h, w, c) in [0, 1]; where no mask and no feather is, the given pixels themselves.
      codes: what was sampled, bool (b, y, x, k).
      known: bits that were held.
    """

    images: np.ndarray
    codes: np.ndarray
    known: np.ndarray


def inpaint(
    model: Pipeline, images: np.ndarray, mask: np.ndarray, *, seed: int = 0, passes: int = 1,
    feather: float | int | None = None, **options: Any,
) -> Completed:  # fmt: skip
    """Images with the masked pixels made anew, so that they go with the others.

    Args:
      images: uint8 or float in [0, 1], (b, h, w, c), of the model's size or a larger canvas whose sides are multiples of a
        token's. What they hold under the mask has no effect.
      mask: bool (h, w) or (b, h, w), True where pixels are to be made.
      passes: of each step, see `Sampler`; more fit the known bits better, at that many times the cost.
      feather: pixels beyond the mask that are blended; None takes a quarter of a token.
      **options: of `Pipeline.edit`: labels, and sampling options.

    Raises:
      UserError: shapes that do not fit, an empty mask, or what `Pipeline.edit` refuses.
    """
    images = np.asarray(images)
    size = token_size(model)
    feather = size // 4 if feather is None else feather
    if not 0 <= feather < np.inf:
        raise UserError(f"feather is {feather}: a number of pixels, at least 0, is expected")
    if images.ndim != 4:
        raise UserError(f"images of shape {images.shape} given; (b, h, w, c) is expected")
    mask = check_mask(mask, images)
    given = {name: value for name, value in options.items() if name not in ("clamp", "start")}
    fillings = model.sample(seed=seed, num=FILLINGS, **given)
    codes, known = known_code(model, images, mask, fillings)
    codes = model.edit(codes, known=known, seed=seed, passes=passes, **options)
    return Completed(images=paste(images, model.decode(codes), mask, feather), codes=codes, known=known)


def outpaint(model: Pipeline, images: np.ndarray, margins: tuple[int, int, int, int], **options: Any) -> Completed:
    """Images continued beyond their edges by overlapping windows of one reverse process.

    Args:
      images: (b, h, w, c), at least of the model's size.
      margins: pixels to add at the top, left, bottom and right; the canvas grows to whole tokens at the bottom and right,
        and those pixels are cut off again.
      **options: of `inpaint`.

    Raises:
      UserError: as `inpaint`; also margins that are negative or make too large a canvas.
    """
    images, size = np.asarray(images), token_size(model)
    if images.ndim != 4:
        raise UserError(f"images of shape {images.shape} given; (b, h, w, c) is expected")
    if len(margins) != 4 or any(not isinstance(m, numbers.Integral) or m < 0 for m in margins) or not any(margins):
        raise UserError(f"margins are {margins}: expected are four numbers of pixels, at least 0 and not all 0")
    top, left, bottom, right = margins
    height, width = images.shape[1] + top + bottom, images.shape[2] + left + right
    if height * width > LARGEST_CANVAS:
        raise UserError(f"a canvas of {height}×{width} pixels is asked for; at most {LARGEST_CANVAS:,} pixels are made")
    whole = [-(-side // size) * size for side in (height, width)]
    after = [w - top_left - side for w, top_left, side in zip(whole, (top, left), images.shape[1:3], strict=True)]
    pads = ((0, 0), (top, after[0]), (left, after[1]))
    mask = np.pad(np.zeros(images.shape[:3], bool), pads, constant_values=True)
    done = inpaint(model, np.pad(np.asarray(to_float(images)), (*pads, (0, 0))), mask, **options)
    return dataclasses.replace(done, images=done.images[:, :height, :width])


def sample_canvas(
    model: Pipeline, height: int, width: int, *, num: int = 1, seed: int = 0, **options: Any
) -> np.ndarray:
    """New pictures (num, height, width, c), float in [0, 1], larger than the model's images, by overlapping windows.

    Args:
      **options: of `Pipeline.edit`.

    Raises:
      UserError: a canvas that is smaller than the model's images or too large, or what `Pipeline.edit` refuses.
    """
    if min(height, width) < 1 or height * width > LARGEST_CANVAS:
        raise UserError(f"a canvas of {height}×{width} pixels is asked for; up to {LARGEST_CANVAS:,} pixels are made")
    size = token_size(model)
    blank = np.zeros((num, -(-height // size), -(-width // size), model.code_shape[-1]), bool)
    return model.decode(model.edit(blank, seed=seed, **options))[:, :height, :width]


def token_size(model: Pipeline) -> int:
    """Pixels along one side of a token.

    Raises:
      UserError: the model has no autoencoder.
    """
    if model.autoencoder is None:
        raise UserError("this model has no autoencoder: train or convert one into its work directory")
    return model.autoencoder.net.downsampling
