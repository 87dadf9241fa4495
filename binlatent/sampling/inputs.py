"""Checks of the arrays and numbers that callers pass to a model."""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from binlatent.console import warn
from binlatent.errors import UserError
from binlatent.sampling.conditions import Conditions
from binlatent.sampling.options import SamplingOptions


def check_student_options(student: Mapping[str, Any], options: SamplingOptions) -> None:
    """Raises UserError where a student (`train.student`) has not learned these options.

    Args:
      student: its `steps` and its largest `guidance`.
    """
    if not 0 <= options.guidance <= student["guidance"]:
        raise UserError(
            f"guidance is {options.guidance:g}: this student has learned weights from 0 to {student['guidance']:g} "
            "(config.student.guidance)"
        )
    if options.guidance and (options.guidance_power or tuple(options.guidance_interval) != (0, 1)):
        raise UserError("guidance_power and guidance_interval have no meaning for a student: its guidance is an input")


def check_student(
    student: Mapping[str, Any], options: SamplingOptions, given: Conditions | None, *, conditional: bool, start: float
) -> None:
    """Compares what a student is asked for with what it has learned, and warns of other times.

    Args:
      student: its `steps` and its largest `guidance`.
      given: the conditions; None for the null condition.
      conditional: whether the student is of a conditional prior.
      start: the time that sampling begins at.

    Raises:
      UserError: it has not learned these options or such a condition.
    """
    check_student_options(student, options)
    if conditional and given is None:
        raise UserError("a student has not learned the null condition: give labels, prompts or a condition")
    if given is not None and given.negative is not None:
        raise UserError("a student takes no negative prompts: it has not learned to be led away from a condition")
    if start < 1 or student["steps"] % options.steps:
        asked, known = f"{options.steps} steps from {start:g}", ", ".join(map(str, steps_of(student)))
        warn(f"this student has not learned the times of {asked}, but those of {known} steps from 1")


def steps_of(student: Mapping[str, Any]) -> list[int]:
    """The numbers of steps that visit only times that a student has learned."""
    return [n for n in range(1, student["steps"] + 1) if student["steps"] % n == 0]


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
