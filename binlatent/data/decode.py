"""Image files to uint8 arrays, whatever their mode."""

import io

import numpy as np
import PIL.Image
import PIL.ImageOps

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))

_PLAIN = {"L": "L", "1": "L", "RGB": "RGB", "RGBA": "RGBA", "LA": "RGBA", "La": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}


def decode_image(data: bytes) -> np.ndarray:
    """Decodes an image file to uint8 (h, w, 1 | 3 | 4): grey, RGB, or RGB with opacity.

    Palettes are resolved, 16 bits become 8, rotation noted by the camera (EXIF) is applied, CMYK and other colour
    spaces become RGB, and of an animation the first frame is taken.

    Raises:
      ValueError: no image, damaged, or of floating-point pixels, whose range is nowhere said.
    """
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            if file.mode in ("P", "PA"):
                file = file.convert("RGBA" if "transparency" in file.info or file.mode == "PA" else "RGB")
            image = PIL.ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits, in Pillow's `I;16` or widened to 32
                wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
                return np.round(wide / 257).astype(np.uint8)[..., None]
            if image.mode == "F":
                raise ValueError("floating-point pixels; store 8 or 16 bits")
            pixels = np.asarray(image.convert(_PLAIN.get(image.mode, "RGB")))
    except (OSError, SyntaxError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels
