"""Arrays as pictures: grids of images, and the files that people name on the command line."""

import math

import numpy as np
from etils import epath

from binlatent.errors import UserError


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [0, 1] as uint8; uint8 images are left as they are."""
    return images if images.dtype == np.uint8 else np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def grid(images: np.ndarray, columns: int | None = None, *, gap: int = 1, shortest: int = 512) -> np.ndarray:
    """One picture (h, w, c) uint8 of images (n, h, w, c), row by row.

    Args:
      columns: images in a row; a square where None.
      gap: pixels between images.
      shortest: small images are enlarged by a whole factor until the picture is about this wide.
    """
    images = to_uint8(images)
    n, h, w, c = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * columns, h + gap, w + gap, c), 255, np.uint8)
    canvas[:n, :h, :w] = images
    canvas = canvas.reshape(rows, columns, h + gap, w + gap, c).swapaxes(1, 2).reshape(rows * (h + gap), -1, c)
    canvas = canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]
    factor = max(1, shortest // canvas.shape[1])
    return canvas.repeat(factor, axis=0).repeat(factor, axis=1)


def save(path: epath.PathLike, image: np.ndarray) -> None:
    """Writes an image (h, w, c), uint8 or float in [0, 1], as PNG."""
    from PIL import Image

    image = to_uint8(image)
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "png")


class ImageSink:
    """Where images go that a person asked for: `.npz` (one file), `.png` (one grid), otherwise a folder of PNGs.

    Use as a context; the file appears when the context ends well.

    Args:
      path: the place.
      columns: of the grid.

    Raises:
      UserError: the place cannot be written, or has an ending that is none of these.
    """

    def __init__(self, path: epath.PathLike, *, columns: int | None = None):
        self.path = epath.Path(path)
        self._columns = columns
        self._images, self._labels, self._count = [], [], 0
        if self.path.suffix not in (".npz", ".png", ""):
            raise UserError(f"--out {path}: end it in .npz (arrays), .png (one grid) or nothing (a folder of PNGs)")
        try:
            (self.path if not self.path.suffix else self.path.parent).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {path} cannot be written: {error}") from error

    def __enter__(self) -> "ImageSink":
        return self

    def add(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Adds a batch of images and, where there are some, their labels."""
        images = to_uint8(images)
        if self.path.suffix:
            self._images.append(images)
        else:
            for i, image in enumerate(images):
                label = "" if labels is None else f"-{labels[i]}"
                save(self.path / f"{self._count + i:06d}{label}.png", image)
        if labels is not None:
            self._labels.append(labels)
        self._count += len(images)

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None or not self._images:
            return
        images = np.concatenate(self._images)
        if self.path.suffix == ".png":
            save(self.path, grid(images, self._columns))
            return
        arrays = {"images": images}
        if self._labels:
            arrays["labels"] = np.concatenate(self._labels).astype(np.int32)
        with self.path.open("wb") as file:
            np.savez_compressed(file, **arrays)
