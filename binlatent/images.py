"""Images as arrays: uint8 ↔ float, distances between them, grids, and image files.

Images are uint8, or float in [0, 1]; channels last. The distances (PSNR, SSIM, L1) can be jitted and give one number per
image; higher is better for PSNR and SSIM, lower for L1.
"""

import io
import math

import einops
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from binlatent.typing import Array, Float, Images, UInt8

# (b, h, w, c), left open here so that other shapes are refused with a reason
AnyImages = Float[Array, "..."] | UInt8[Array, "..."] | Float[np.ndarray, "..."] | UInt8[np.ndarray, "..."]
SSIM_DEFINITION = "scikit-image structural_similarity, gaussian_weights=True, sigma=1.5, use_sample_covariance=False"
SSIM_WINDOW = 11
_SIGMA = 1.5


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [0, 1] as uint8; uint8 images are left as they are."""
    return images if images.dtype == np.uint8 else np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def to_float(images: AnyImages) -> Images:
    """uint8 0…255 → float32 0…1; floats stay in [0, 1] and become float32."""
    scale = 255 if images.dtype == jnp.uint8 else 1
    return jnp.asarray(images, jnp.float32) / scale


def _pair(a, b):
    if a.shape != b.shape:
        raise ValueError(f"images of shape {a.shape} and {b.shape} cannot be compared")
    return to_float(a), to_float(b)


def l1(a: AnyImages, b: AnyImages) -> Float[Array, "b"]:
    """Mean absolute difference, on the scale [0, 1]. Raises ValueError for other shapes."""
    a, b = _pair(a, b)
    return jnp.abs(a - b).mean((1, 2, 3))


def psnr(a: AnyImages, b: AnyImages) -> Float[Array, "b"]:
    """−10 log₁₀ of the mean squared difference, in dB; infinite for identical images.

    Raises:
      ValueError: for other shapes.
    """
    a, b = _pair(a, b)
    return -10 * jnp.log10(jnp.square(a - b).mean((1, 2, 3)))


def ssim(a: AnyImages, b: AnyImages) -> Float[Array, "b"]:
    """Structural similarity (Wang et al. 2004) as `SSIM_DEFINITION` names it, averaged over channels.

    Raises:
      ValueError: for other shapes, or images smaller than the window of 11 pixels.
    """
    a, b = _pair(a, b)
    if min(a.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM has a window of {SSIM_WINDOW} pixels; images of {a.shape[1]}×{a.shape[2]} are too small"
        )
    window = np.exp(-0.5 * ((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / _SIGMA) ** 2)
    window = (window / window.sum()).tolist()

    def blur(x):  # only where the window lies inside: scikit-image crops the rest away
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
    """How many columns make a grid of `num` images about square, with `group` consecutive images never torn apart.

    A group is a row of one image per class, or an original and its reconstruction. A group that is far wider than the
    square is not kept together.
    """
    side = max(1.0, math.sqrt(num))
    if group > min(num, 2 * side):
        return math.ceil(side)
    return group * max(1, round(side / group))


def image_grid(images: np.ndarray, columns: int | None = None, *, gap: int = 1, shortest: int = 512) -> np.ndarray:
    """One picture (rows·h + gaps, columns·w + gaps, c), uint8, of images (n, h, w, c), row by row.

    Args:
      images: uint8 or float in [0, 1].
      columns: images in a row; a square where None.
      gap: white pixels between images.
      shortest: small images are enlarged by an integer factor until the picture is about this wide.
    """
    images = to_uint8(images)
    n, h, w, _ = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * columns, h + gap, w + gap, images.shape[-1]), 255, np.uint8)
    canvas[:n, :h, :w] = images
    canvas = einops.rearrange(canvas, "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)
    canvas = canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]
    factor = max(1, shortest // canvas.shape[1])
    return canvas.repeat(factor, axis=0).repeat(factor, axis=1)


def comparison_grid(originals: np.ndarray, reconstructions: np.ndarray, columns: int = 8) -> np.ndarray:
    """One picture of images (n, h, w, c), each with its reconstruction below; what would not fill a row is left out.

    Args:
      originals, reconstructions: uint8 or float in [0, 1], n of each.
      columns: images in a row, fewer where there are fewer images.
    """
    columns = min(columns, len(originals))
    count = len(originals) // columns * columns
    both = np.stack([to_uint8(originals[:count]), to_uint8(reconstructions[:count])])
    both = einops.rearrange(both, "two (rows columns) h w c -> (rows two columns) h w c", columns=columns)
    return image_grid(both, columns)


def save_image(path: epath.PathLike, image: np.ndarray) -> None:
    """Writes an image (h, w, c), uint8 or float in [0, 1], in the format of the path's ending.

    Raises:
      ValueError: an ending that Pillow does not know.
    """
    from PIL import Image

    image = to_uint8(image)
    path = epath.Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: no image format has the ending {path.suffix!r}")
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    encoded = io.BytesIO()  # an image that cannot be encoded leaves no file
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(encoded, kind, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.getvalue())
