"""Output of images: arrays, one picture, or a folder of pictures."""

import csv
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from etils import epath

from binlatent.errors import UserError
from binlatent.files import atomic, user_path, write_atomic
from binlatent.images import image_grid, save_image, to_uint8

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
ARRAYS = ".npz"
# Suffixes of file formats that are not supported; any other suffix is part of a folder's name (`run_v0.5`).
OTHERS = frozenset((
    *(".avif", ".bmp", ".csv", ".gif", ".heic", ".html", ".ico", ".jp2", ".json", ".mp4", ".npy", ".pdf", ".pkl", ".ppm"),
    *(".pt", ".pth", ".svg", ".tar", ".tfrecord", ".tga", ".tif", ".tiff", ".txt", ".zip"),
))  # fmt: skip
LARGEST_PICTURE = 2**27  # pixels; few programs can open more
LARGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # pixels; limits of Pillow's libraries
LARGEST_ARRAYS = 2**33  # bytes; they are in memory until the file is written


class ImageSink:
    """Writes images to one `.npz`, to one picture (`.png`, `.jpg`, `.webp`: a grid) or else to a folder of PNG files.

    A context manager. A single file is written when the context ends without an error.

    Args:
      path: the value of `--out`.

    Raises:
      UserError: the suffix is not supported, a folder is given for a file or the reverse, the folder already holds
        images, the path cannot be written, or there are too many images for one file.
    """

    def __init__(self, path: epath.PathLike):
        text = os.fspath(path)
        self.path = user_path(path).expanduser()
        suffix = "" if text.endswith("/") else self.path.suffix.lower()
        if suffix in OTHERS:
            raise UserError(
                f"--out {text}: {suffix} files are not supported; use .npz (arrays), {', '.join(PICTURES)} (one "
                "picture) or no suffix (a folder of PNG files)"
            )
        self.suffix = suffix if suffix in (ARRAYS, *PICTURES) else ""
        self._columns: int | None = None
        self._images: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._names: list[str] = []
        self._count, self._made_folder = 0, False
        self._check_place(text)

    @property
    def is_picture(self) -> bool:
        """Whether the output is one grid."""
        return self.suffix in PICTURES

    @property
    def is_folder(self) -> bool:
        return not self.suffix

    def _check_place(self, text: str) -> None:
        if self.suffix and self.path.is_dir():
            raise UserError(f"--out {text} is a folder; name a file")
        if self.suffix or not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"--out {text} is a file; use the suffix .npz, {', '.join(PICTURES)}, or name a folder")
        remote = "://" in os.fspath(self.path)
        children = self.path.iterdir() if remote else pathlib.Path(self.path).rglob("*")
        count = sum(child.suffix.lower() in PICTURES for child in children)
        if count:
            raise UserError(f"--out {text} already holds {count} images; remove them or name another folder")

    def expect(self, num: int, shape: tuple[int, int, int], *, columns: int | None = None) -> None:
        """Announces the number of images and their shape (h, w, c), so that impossible output is an error beforehand.

        Args:
          columns: of the grid; None for a square.
        """
        self._columns = columns or max(1, round(num**0.5))
        height, width, channels = shape
        if self.suffix == ARRAYS and (size := num * height * width * channels) > LARGEST_ARRAYS:
            raise UserError(
                f"{num:,} images are {size / 2**30:.0f} GiB, too many for one file; give a folder as --out, or fewer images"
            )
        if self.is_picture:
            rows = -(-num // self._columns)
            sides = rows * (height + 1), self._columns * (width + 1)
            if sides[0] * sides[1] > LARGEST_PICTURE or max(sides) > LARGEST_SIDE.get(self.suffix, LARGEST_PICTURE):
                raise UserError(
                    f"a picture of {num:,} images would have {sides[1]:,}×{sides[0]:,} pixels, too many for "
                    f"{self.suffix}; give a folder or .npz as --out, or fewer images"
                )

    def __enter__(self) -> "ImageSink":
        folder = self.path if self.is_folder else self.path.parent
        try:
            self._made_folder = self.is_folder and not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            if "://" not in os.fspath(folder):  # so that a path that cannot be written is an error beforehand
                probe = folder / f".{os.getpid()}.tmp"
                probe.write_bytes(b"")
                probe.unlink()
        except OSError as error:
            raise UserError(f"--out {self.path} cannot be written: {error.strerror or error}") from error
        return self

    def add(
        self, images: np.ndarray, labels: np.ndarray | None = None, names: Sequence[str | None] | None = None
    ) -> None:
        """Adds images (n, h, w, c), uint8 or float in [0, 1].

        Args:
          labels: their classes, int (n,).
          names: their file names in a folder, without suffix; None for numbers.
        """
        images = to_uint8(np.asarray(images))
        names = names or [None] * len(images)
        for i, (image, name) in enumerate(zip(images, names, strict=True)):
            label = "" if labels is None else f"-{labels[i]}"
            self._names.append(name or f"{self._count + i:06d}{label}")
            if self.is_folder:
                save_image(self.path / f"{self._names[-1]}.png", image)
        self._count += len(images)
        if not self.is_folder:
            self._images.append(images)
            if labels is not None:
                self._labels.append(np.asarray(labels))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], name: str) -> epath.Path:
        """Writes a table `name.csv` to the folder, or `<file's name>.<name>.csv` beside the file; returns its path."""
        path = self.path / f"{name}.csv" if self.is_folder else self.path.with_name(f"{self.path.stem}.{name}.csv")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([str(cell).encode("utf-8", "backslashreplace").decode() for cell in row] for row in rows)
        write_atomic(path, text.getvalue())
        return path

    def __exit__(self, kind, error, traceback) -> None:
        if self._made_folder and not any(self.path.iterdir()):
            self.path.rmdir()  # there were no images
        if kind is not None or not self._images:
            return
        images = np.concatenate(self._images)
        if self.is_picture:
            save_image(self.path, image_grid(images, self._columns, tallest=LARGEST_SIDE.get(self.suffix, 2**14)))
            return
        arrays = {"images": images}
        if self._labels:
            arrays["labels"] = np.concatenate(self._labels).astype(np.int32)
        if self._names:
            arrays["names"] = np.array([name.encode("utf-8", "backslashreplace").decode() for name in self._names])
        with atomic(self.path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
