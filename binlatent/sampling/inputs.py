"""Checks of the arrays and numbers that callers pass to a model."""

import numbers
from typing import Any

import numpy as np

from binlatent.errors import UserError


def check_images(images: Any, shape: tuple[int, int, int], multiple: int = 0) -> np.ndarray:
    """Images (b, h, w, c), uint8 or float in [0, 1], of the model's size (h, w, c), or with sides that are larger
    multiples of `multiple` where that is given.

    Raises:
      UserError: another shape, type or range, or no image at all.
    """
    images = np.asarray(images)
    if not _fits(images.shape, shape, multiple):
        larger = f", or larger multiples of {multiple} pixels" if multiple else ""
        raise UserError(
            f"images of shape {images.shape} given; this model takes (b, {', '.join(map(str, shape))}){larger}"
        )
    if not len(images):
        raise UserError(f"images of shape {images.shape} given: at least one image is expected")
    floating = np.issubdtype(images.dtype, np.floating)
    if images.dtype != np.uint8 and not (floating and np.all((images >= 0) & (images <= 1))):
        raise UserError(f"images of type {images.dtype} given; uint8 or float in [0, 1] is expected, without NaN")
    return images


def _fits(found: tuple[int, ...], shape: tuple[int, int, int], multiple: int) -> bool:
    """Whether (b, height, width, channels) is of a shape (height, width, channels), or larger by integer multiples."""
    if len(found) != 4 or found[3] != shape[2]:
        return False
    if not multiple:
        return found[1:3] == shape[:2]
    return all(side >= least and side % multiple == 0 for side, least in zip(found[1:3], shape[:2], strict=True))


def check_codes(codes: Any, shape: tuple[int, int, int], *, canvas: bool = False) -> np.ndarray:
    """Codes, bool (b, y, x, k), of the model's shape (y, x, k); of a `canvas` also of more tokens.

    Raises:
      UserError: another shape or type, or no code at all.
    """
    codes = np.asarray(codes)
    if not _fits(codes.shape, shape, int(canvas)) or codes.dtype != bool:
        raise UserError(
            f"codes of shape {codes.shape} and type {codes.dtype} given; bool (b, {', '.join(map(str, shape))}) is expected"
        )
    if not len(codes):
        raise UserError(f"codes of shape {codes.shape} given: at least one code is expected")
    return codes


def check_known(known: Any, codes: np.ndarray) -> np.ndarray | None:
    """Bits to keep, bool, of the codes' shape; None for none.

    Raises:
      UserError: another shape or type.
    """
    if known is None:
        return None
    known = np.asarray(known)
    if known.shape != codes.shape or known.dtype != bool:
        raise UserError(f"known is {known.dtype} {known.shape}; bool {codes.shape} is expected, as the codes")
    return known


def check_times(t: Any, num: int) -> np.ndarray:
    """Times float32 (num,) in [0, 1], of one time or one for each code.

    Raises:
      UserError: times outside [0, 1], or as many as there are no codes.
    """
    try:
        times = np.broadcast_to(np.asarray(t, np.float32), (num,))
    except (ValueError, TypeError) as error:
        raise UserError(f"t is {t!r}: one time, or one for each of {num} codes, is expected") from error
    if not np.all((times >= 0) & (times <= 1)):
        raise UserError(f"t is {t}: times in [0, 1] are expected")
    return times


def check_count(name: str, value: Any, *, least: int = 1, most: int = 2**32) -> int:
    """An integer from `least` to `most`.

    Raises:
      UserError: anything else.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not least <= value <= most:
        bounds = f"of at least {least}" if most == 2**32 else f"from {least} to {most}"
        raise UserError(f"{name} is {value!r}: an integer {bounds} is expected")
    return int(value)
