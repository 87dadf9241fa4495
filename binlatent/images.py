"""Images as arrays: uint8 ↔ float, similarity measures, grids, and image files.

Images are uint8, or float in [0, 1], with channels last. The measures (PSNR, SSIM, L1) can be jitted and return one
number per image; higher is better for PSNR and SSIM, lower for L1.
"""

import io
import math
import textwrap
from collections.abc import Sequence

import einops
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from binlatent.files import write_atomic
from binlatent.typing import Array, Float, Images, UInt8

# (b, h, w, c), but unchecked, so that the functions can raise an error that explains a wrong shape
AnyImages = Float[Array, "..."] | UInt8[Array, "..."] | Float[np.ndarray, "..."] | UInt8[np.ndarray, "..."]
SSIM_DEFINITION = "scikit-image structural_similarity, gaussian_weights=True, sigma=1.5, use_sample_covariance=False"
SSIM_WINDOW = 11
_SIGMA = 1.5


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Converts float images in [0, 1] to uint8; uint8 images are unchanged."""
    return images if images.dtype == np.uint8 else np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def to_float(images: AnyImages) -> Images:
    """Converts uint8 images to float32 in [0, 1]; float images become float32."""
    scale = 255 if images.dtype == jnp.uint8 else 1
    return jnp.asarray(images, jnp.float32) / scale


def _pair(a, b):
    if a.shape != b.shape:
        raise ValueError(f"images of shape {a.shape} and {b.shape} cannot be compared")
    return to_float(a), to_float(b)


def l1(a: AnyImages, b: AnyImages) -> Float[Array, "b"]:
    """Mean absolute difference of pixels in [0, 1]. Raises ValueError if the shapes differ."""
    a, b = _pair(a, b)
    return jnp.abs(a - b).mean((1, 2, 3))


def psnr(a: AnyImages, b: AnyImages) -> Float[Array, "b"]:
    """−10 log₁₀ of the mean squared difference, in dB; infinite for identical images.

    Raises:
      ValueError: the shapes differ.
    """
    a, b = _pair(a, b)
    return -10 * jnp.log10(jnp.square(a - b).mean((1, 2, 3)))


def ssim(a: AnyImages, b: AnyImages) -> Float[Array, "b"]:
    """Structural similarity (Wang et al. 2004) as in `SSIM_DEFINITION`, averaged over channels.

    Raises:
      ValueError: the shapes differ, or images are smaller than the window of 11 pixels.
    """
    a, b = _pair(a, b)
    if min(a.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM has a window of {SSIM_WINDOW} pixels; images of {a.shape[1]}×{a.shape[2]} are too small"
        )
    window = np.exp(-0.5 * ((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / _SIGMA) ** 2)
    window = (window / window.sum()).tolist()

    def blur(x):  # without padding: scikit-image crops the border too
        for axis in (1, 2):
            inside = x.shape[axis] - SSIM_WINDOW + 1
            x = sum(w * jax.lax.slice_in_dim(x, i, i + inside, axis=axis) for i, w in enumerate(window))
        return x

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return similarity.mean((1, 2, 3))


def grid_columns(num: int, group: int = 1) -> int:
    """The number of columns that makes a grid of `num` images about square and keeps `group` consecutive images in a row.

    A group is for example one image per class, or an original and its reconstruction. Groups much wider than the square
    are not kept together.
    """
    side = max(1.0, math.sqrt(num))
    if group > min(num, 2 * side):
        return math.ceil(side)
    return group * max(1, round(side / group))


def image_grid(
    images: np.ndarray, columns: int | None = None, *, gap: int = 1, shortest: int = 512, tallest: int = 2**14
) -> np.ndarray:
    """Arranges images (n, h, w, c) row by row in one picture (rows·h + gaps, columns·w + gaps, c), uint8.

    Args:
      images: uint8 or float in [0, 1].
      columns: images per row; None for a square.
      gap: white pixels between images.
      shortest: small images are enlarged by an integer factor, up to this width of the picture,
      tallest: and this height.
    """
    images = to_uint8(images)
    n, h, w, _ = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * columns, h + gap, w + gap, images.shape[-1]), 255, np.uint8)
    canvas[:n, :h, :w] = images
    canvas = einops.rearrange(canvas, "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)
    canvas = canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]
    factor = max(1, min(shortest // canvas.shape[1], tallest // canvas.shape[0]))
    return canvas.repeat(factor, axis=0).repeat(factor, axis=1)


def comparison_grid(originals: np.ndarray, reconstructions: np.ndarray, columns: int = 8) -> np.ndarray:
    """Arranges images (n, h, w, c) with their reconstructions below in one picture; drops an incomplete last row.

    Args:
      originals, reconstructions: n images each, uint8 or float in [0, 1].
      columns: images per row, or n if that is fewer.
    """
    columns = min(columns, len(originals))
    count = len(originals) // columns * columns
    both = np.stack([to_uint8(originals[:count]), to_uint8(reconstructions[:count])])
    both = einops.rearrange(both, "two (rows columns) h w c -> (rows two columns) h w c", columns=columns)
    return image_grid(both, columns)


def captioned_grid(images: np.ndarray, captions: Sequence[str], columns: int, *, scale: int = 4) -> np.ndarray:
    """Arranges images (n, h, w, c) row by row in one picture, uint8 RGB on white, each with its caption below.

    Args:
      images: uint8 or float in [0, 1].
      captions: one an image; divided into lines at spaces.
      columns: images per row.
      scale: images are enlarged by this factor, without interpolation.
    """
    from PIL import Image, ImageDraw, ImageFont

    side, font = scale * images.shape[2], ImageFont.load_default(12)
    lines = [textwrap.wrap(caption, int(side / font.getlength("n"))) for caption in captions]
    tall = scale * images.shape[1] + 16 * max(map(len, lines)) + 8
    canvas = Image.new("RGB", (columns * (side + 16), math.ceil(len(images) / columns) * tall), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (image, words) in enumerate(zip(to_uint8(images), lines, strict=True)):
        left, top = i % columns * (side + 16) + 8, i // columns * tall + 8
        image = image.repeat(scale, axis=0).repeat(scale, axis=1)
        canvas.paste(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), (left, top))
        middle = (left + side // 2, top + image.shape[0] + 4)
        draw.multiline_text(middle, "\n".join(words), "black", font, anchor="ma", align="center")
    return np.asarray(canvas)


def save_image(path: epath.PathLike, image: np.ndarray) -> None:
    """Writes an image (h, w, c), uint8 or float in [0, 1], in the format of the path's suffix.

    Raises:
      ValueError: Pillow does not know the suffix.
    """
    from PIL import Image

    image = to_uint8(image)
    path = epath.Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: no image format has the suffix {path.suffix!r}")
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    encoded = io.BytesIO()  # encoded first, so that a failure leaves no file behind
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(encoded, kind, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encoded.getvalue(), sync=False)
