"""What the known pixels of a picture say of its code, and the way back from a code into the picture."""

import numpy as np

from binlatent.errors import UserError
from binlatent.images import to_float
from binlatent.pipeline import Pipeline

DISSENT = 1 / 8  # share of the fillings under which a known bit may be another; see docs/editing.md


def check_mask(mask: np.ndarray, images: np.ndarray) -> np.ndarray:
    """A mask (b, h, w) of images (b, h, w, c), True where pixels are to be made anew.

    Args:
      mask: bool (h, w) or (b, h, w).

    Raises:
      UserError: another shape or type, or a mask that leaves nothing to make, or nothing known.
    """
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape not in (images.shape[:3], images.shape[1:3]):
        raise UserError(f"the mask is {mask.dtype} {mask.shape}: bool {images.shape[1:3]} is expected, as the images")
    mask = np.broadcast_to(mask, images.shape[:3])
    if not mask.any((1, 2)).all():
        raise UserError("the mask is empty: mark the pixels to replace")
    if mask.all((1, 2)).any():
        raise UserError("the mask covers a whole image, so nothing of it is known: use `sample`")
    return mask


def box(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The mask (h, w) of a box, given as `top,left,bottom,right` in parts of the image; a pixel that it touches is in it.

    Raises:
      ValueError: these are not four numbers with 0 ≤ top < bottom ≤ 1 and 0 ≤ left < right ≤ 1.
    """
    try:
        top, left, bottom, right = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r}: four comma-separated numbers are expected: top,left,bottom,right") from None
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(f"{text!r}: 0 <= top < bottom <= 1 and 0 <= left < right <= 1 is expected")
    (height, width), rows, columns = shape, np.arange(shape[0]), np.arange(shape[1])
    inside = (rows + 1 > top * height) & (rows < bottom * height)
    return inside[:, None] & ((columns + 1 > left * width) & (columns < right * width))[None]


def known_code(
    model: Pipeline, images: np.ndarray, mask: np.ndarray, fillings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The code of images whose pixels are not known where `mask`, and which of its bits follow from the known pixels.

    An encoder sees beyond a token's own pixels, through convolutions, norms and attention; how far in effect depends on
    the picture. So the unknown pixels are filled with other pictures, and a bit is known where it is the same under all
    but at most one in `1 / DISSENT` of them.

    Args:
      images: uint8 or float in [0, 1], (b, h, w, c).
      mask: bool (b, h, w), True where unknown; what the images hold there has no effect.
      fillings: pictures (n, …, …, c) that might be there, repeated over a larger canvas.

    Returns:
      (codes, known), both bool (b, y, x, k).
    """
    images = np.asarray(to_float(images))
    hole, (height, width) = mask[..., None], images.shape[1:3]
    ones = 0.0
    for picture in np.asarray(to_float(fillings)):
        times = -(-height // picture.shape[0]), -(-width // picture.shape[1])
        filling = np.tile(picture, (*times, 1))[:height, :width]
        ones = ones + model.encode(np.where(hole, filling, images))
    share = ones / len(fillings)
    return share > 0.5, (share <= DISSENT) | (share >= 1 - DISSENT)


def paste(images: np.ndarray, made: np.ndarray, mask: np.ndarray, feather: float | int) -> np.ndarray:
    """The made images where `mask`, the given ones elsewhere, float in [0, 1]; the edge is blended over known pixels.

    Args:
      images, made: (b, h, w, c), uint8 or float in [0, 1].
      mask: bool (b, h, w).
      feather: how many pixels beyond the mask are mixed with what was made; 0 for a hard edge.
    """
    from scipy.ndimage import distance_transform_edt

    distance = np.stack([distance_transform_edt(~each) for each in mask])
    share = np.clip(1 - distance / (feather + 1), 0, 1)[..., None].astype(np.float32)
    images, made = (np.asarray(to_float(x)) for x in (images, made))
    return np.where(share > 0, share * made + (1 - share) * images, images)
