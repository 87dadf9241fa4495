"""Data sets in memory: scikit-learn's handwritten digits and npz files."""

import numpy as np
from etils import epath

from binlatent.data import captions as caption_files
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import MOST_CLASSES, Example, ImageSource, Opened, embedding, held_out
from binlatent.data.strings import PackedStrings
from binlatent.errors import UserError
from binlatent.files import DAMAGED_NPZ, digest, user_path


class ArraySource(ImageSource):
    """Images in memory."""

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        conditions: np.ndarray | None = None,
        captions: PackedStrings | None = None,
    ):
        """Args:
        name: for messages.
        images: uint8 (n, h, w, c).
        labels: int32 (n,), if there are classes.
        conditions: float32 (n, ...), if there are embeddings.
        captions: a string per image, with one caption per line.
        """
        super().__init__()
        self._name, self._images, self._labels = name, images, labels
        self._conditions, self._captions = conditions, captions

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"ArraySource({self._name!r}, {len(self)} images)"

    def read(self, index: int) -> Example:
        example: Example = {"image": self._images[index]}
        if self._labels is not None:
            example["label"] = self._labels[index]
        if self._conditions is not None:
            example["condition"] = self._conditions[index]
        if self._captions is not None:
            example["caption"] = caption_files.split(self._captions[index])
        return example

    def part(self, name: str, chosen: np.ndarray) -> "ArraySource":
        """The examples where `chosen` (n,) is True."""
        rest = (None if array is None else array[chosen] for array in (self._labels, self._conditions))
        captions = None if self._captions is None else self._captions.chosen(chosen)
        return ArraySource(f"{self._name} {name}", self._images[chosen], *rest, captions)


def _opened(
    options: DataOptions, seed: int, source: ArraySource, class_names: tuple[str, ...], identity: str
) -> Opened:
    mask = held_out(len(source), options.validation_fraction, seed)
    return Opened(
        train=source.part("train", ~mask),
        validation=source.part("validation", mask),
        class_names=class_names,
        identity=identity,
    )


def _no_validation_split(options: DataOptions):
    if options.validation_split:
        raise UserError(
            f"data.validation_split='{options.validation_split}': source '{options.source}' has no named splits; leave "
            "it empty and set data.validation_fraction."
        )


def open_digits(options: DataOptions, seed: int) -> Opened:
    """Opens scikit-learn's 1,797 handwritten digits, 8×8 grey, 10 classes."""
    from sklearn.datasets import load_digits

    _no_validation_split(options)
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32) if options.labels else None
    source = ArraySource("digits", images, labels)
    return _opened(options, seed, source, tuple("0123456789"), digest("digits", images))


def open_npz(options: DataOptions, seed: int) -> Opened:
    """Opens an npz file with `images` uint8 (n, h, w, c) or (n, h, w), and optionally `labels` (n,)."""
    _no_validation_split(options)
    path = user_path(options.path).expanduser()
    if not options.path or not path.exists():
        raise UserError(f"data.path='{options.path}': no such file; give an npz file with an array `images`.")
    wanted = ("images", "labels", "condition", options.captions)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in wanted}
    except (*DAMAGED_NPZ, AttributeError) as error:
        raise UserError(
            f"{path}: not a readable npz file ({error}). Write it with np.savez(path, images=…)."
        ) from error
    if "images" not in arrays:
        raise UserError(f"{path}: no array `images`; write it with np.savez(path, images=…, labels=…).")
    images = arrays["images"]
    if images.dtype != np.uint8:
        raise UserError(
            f"{path}: images are {images.dtype}, expected uint8 from 0 to 255; convert floats in [0, 1] with "
            "np.round(images * 255).astype(np.uint8)."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not images.size:
        raise UserError(
            f"{path}: images have shape {arrays['images'].shape}, expected (n, h, w, 1 | 3 | 4) or (n, h, w)."
        )
    labels = _checked_labels(path, arrays.get("labels"), len(images)) if options.labels else None
    conditions = _checked_conditions(path, arrays.get("condition"), len(images)) if options.embeddings else None
    captions = _checked_captions(path, options.captions, arrays, len(images)) if options.captions else None
    names = () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))
    used = [array for array in (labels, conditions) if array is not None]
    used += [captions.text, captions.ends] if captions else []
    source = ArraySource(path.name, images, labels, conditions, captions)
    return _opened(options, seed, source, names, digest("npz", images, *used))


def _checked_conditions(path: epath.Path, conditions: np.ndarray | None, count: int) -> np.ndarray:
    if conditions is None or conditions.ndim < 2 or len(conditions) != count:
        raise UserError(f"{path}: data.embeddings='npy' needs an array `condition` with one row per image.")
    return embedding(conditions, f"{path}, condition")


def _checked_captions(path: epath.Path, name: str, arrays: dict[str, np.ndarray], count: int) -> PackedStrings:
    texts = arrays.get(name)
    if texts is None or texts.dtype.kind != "U" or texts.ndim not in (1, 2) or len(texts) != count:
        found = "no such array" if texts is None else f"{texts.dtype} {texts.shape}"
        raise UserError(
            f"{path}: data.captions='{name}' needs an array {name} of {count} rows of strings, (n,) or (n, captions); "
            f"found {found}. Write it with np.savez(path, images=…, {name}=np.array([…], dtype=str))."
        )
    captions = [caption_files.clean(row) for row in texts.reshape(count, -1).tolist()]
    if not all(captions):
        missing = [i for i, row in enumerate(captions) if not row]
        raise UserError(
            f"{path}: {len(missing)} of {count} images have no caption in {name}, the first is {missing[0]}."
        )
    return PackedStrings.of(map(caption_files.join, captions))


def _checked_labels(path: epath.Path, labels: np.ndarray | None, count: int) -> np.ndarray | None:
    if labels is None:
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: labels are {labels.dtype} {labels.shape}, expected integers of shape ({count},).")
    if labels.min() < 0:
        raise UserError(f"{path}: label {labels.min()} is negative; classes are numbered from 0.")
    if labels.max() >= MOST_CLASSES:
        raise UserError(f"{path}: label {labels.max()} is too large; number the classes from 0 without gaps.")
    return labels.astype(np.int32)
