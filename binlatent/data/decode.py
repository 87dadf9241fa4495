"""Image files → uint8 arrays, from any mode that Pillow reads, with bounded time and memory."""

import io
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
MOST_PIXELS = 2**26  # of an image that is decoded, 8192²: about a second, and at most 270 MB

_PLAIN = {"L": "L", "1": "L", "RGB": "RGB", "RGBA": "RGBA", "LA": "RGBA", "La": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}

# Pillow warns about large images before knowing whether they are decoded at a reduced size; `_load` checks the size.
warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)


def decode_image(data: bytes, side: int = 0) -> np.ndarray:
    """Decodes an image file to uint8 (h, w, 1 | 3 | 4): grey, RGB, or RGB with opacity.

    Palettes are expanded, 16 bits become 8, EXIF rotation is applied, CMYK and other colour spaces become RGB, and the
    first frame of an animation is used.

    Args:
      data: the content of the file.
      side: the resolution that the image will be resized to. An image whose shorter side is at least four times as long
        is reduced to between two and four times `side`, JPEG files while decoding, others right after. 0: never.

    Raises:
      ValueError: the data are not an image, or damaged; the image has more than `MOST_PIXELS` to decode, or
        floating-point pixels, whose range is unknown.
    """
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            return _load(file, side)
    except PIL.UnidentifiedImageError as error:
        raise ValueError("not an image in a known format, or its header is damaged") from error
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels to decode ({error}); make the image smaller first") from error
    except Exception as error:  # damaged files make Pillow raise SyntaxError, struct.error, OverflowError, …
        raise ValueError(str(error) or type(error).__name__) from error


def _load(file: PIL.Image.Image, side: int) -> np.ndarray:
    if side:
        file.draft(None, (2 * side, 2 * side))  # JPEG: decodes at 1/2, 1/4 or 1/8 of the size, but not below this one
    width, height = file.size
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"{width}×{height} pixels; at most {MOST_PIXELS:,} are decoded, so make the image smaller first"
        )
    if file.mode in ("P", "PA"):
        file = file.convert("RGBA" if "transparency" in file.info or file.mode == "PA" else "RGB")
    image = PIL.ImageOps.exif_transpose(file)
    if image.mode == "F":
        raise ValueError("floating-point pixels; store 8 or 16 bits")
    wide = image.mode.startswith("I")  # 16 bits, in Pillow's `I;16` or widened to 32
    image = image.convert("I" if wide else _PLAIN.get(image.mode, "RGB"))
    if side and (factor := min(image.size) // (2 * side)) > 1:
        image = image.resize([round(n / factor) for n in image.size], PIL.Image.Resampling.BOX)
    pixels = np.asarray(image)
    if wide:
        pixels = np.round(np.clip(pixels, 0, 65535) / np.float32(257)).astype(np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels
