"""The sections `data`, `plan` and `codes` of a config."""

import dataclasses
from typing import Any

from binlatent.errors import UserError

MOST_VIEWS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The `data` section of a config.

    Attributes:
      source: `digits` (scikit-learn's handwritten digits), `captioned_digits` (several of them on a canvas), `emoji`
        (OpenMoji), `folder` (image files), `npz` (arrays), `tfds` (TensorFlow Datasets prepared as array_record),
        `shards` (tar files of images).
      path: the folder, the npz file, the folder of tar files, or the TFDS data_dir; may be remote (gs://, s3://)
        where etils.epath can read it.
      name: name of the TFDS set.
      split: the training split: of TFDS, a sub-folder of an image folder that has splits, or a prefix of tar file names.
      validation_split: the validation split; if empty, part of `split` is held out by hash (see `held_out`).
      validation_fraction: the fraction held out by hash.
      resolution: height = width of the images, in pixels.
      channels: 1 (grey) or 3 (RGB); images are converted.
      crop: `random` or `center` crop of training images that are not square; evaluation uses the centre.
      flip: mirror training images at random.
      labels: False ignores the classes.
      embeddings: `npy` gives each image the array stored beside it as `condition`: `name.npy` beside `name.jpg`,
        in a folder or a tar file, or the array `condition` of an npz file. Empty: none.
      captions: where the captions of an image are. `txt`: in `name.txt` beside `name.jpg`, one per line, in a folder
        or a tar file. `jsonl`: in a folder's `metadata.jsonl` (`file_name` and `text`, as in Hugging Face datasets). For
        tfds: the name of a text feature (`captions/text` for a nested one). For npz: the name of an array of strings
        (n,) or (n, captions). `own`: the captions of captioned_digits and emoji. Empty: none.
      workers: processes that read and decode; 0 uses threads of the main process.
    """

    source: str = "digits"
    path: str = ""
    name: str = ""
    split: str = "train"
    validation_split: str = ""
    validation_fraction: float = 0.1
    resolution: int
    channels: int = 3
    crop: str = "random"
    flip: bool = False
    labels: bool = True
    embeddings: str = ""
    captions: str = ""
    workers: int = 0

    def __post_init__(self):
        _choice("source", self.source, ("digits", "captioned_digits", "emoji", "folder", "npz", "tfds", "shards"))
        _choice("crop", self.crop, ("random", "center"))
        _choice("channels", self.channels, (1, 3))
        _choice("embeddings", self.embeddings, ("", "npy"))
        if self.resolution < 1:
            raise UserError(
                f"data.resolution={self.resolution}: give the height = width of the images in pixels, at least 1."
            )
        if self.workers < 0:
            raise UserError(f"data.workers={self.workers}: give a number of processes, 0 for none.")
        if not self.validation_split and not 0 < self.validation_fraction < 1:
            raise UserError(
                f"data.validation_fraction={self.validation_fraction}: give a fraction between 0 and 1 (0.1 holds out a "
                "tenth), or set data.validation_split."
            )
        if self.embeddings and self.source in ("digits", "captioned_digits", "emoji", "tfds"):
            raise UserError(f"data.embeddings='{self.embeddings}': source '{self.source}' has no embeddings; use ''.")
        own = ("", "own")
        forms = {"digits": ("",), "captioned_digits": own, "emoji": own}
        forms |= {"folder": ("", "txt", "jsonl"), "shards": ("", "txt")}
        if self.source in forms:
            _choice("captions", self.captions, forms[self.source], f" with data.source='{self.source}'")
        if self.captions and self.embeddings:
            raise UserError(
                f"data.captions='{self.captions}' and data.embeddings='{self.embeddings}' are both set, but images are "
                "conditioned on only one of them; leave the other empty."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeOptions:
    """The `codes` section of a config: which codes of an image are stored for the prior.

    Attributes:
      flips: the codes of the mirrored image too, as many as of the image.
      views: codes of an image. The first is thresholded, of the centre crop. The others are drawn from the bits'
        probabilities, of crops and flips as in the training of the autoencoder (`data.crop`, `data.flip`). The prior is
        trained with one of all codes of an image, drawn anew in every epoch, and validated with the first.
    """

    flips: bool = False
    views: int = 1

    def __post_init__(self):
        if not 1 <= self.views <= MOST_VIEWS:
            raise UserError(
                f"codes.views={self.views}: give a number from 1 (thresholded codes alone) to {MOST_VIEWS}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpectedData:
    """The `plan` section of a config: the conditions of its data, for `plan` and `bench`, which open no data, and a slice.

    Attributes:
      num_classes: 0 without labels.
      condition_shape: of the embedding stored with each image, for example (tokens, features) of a text; () without.
      words: vocabulary of the text encoder `own`, 257 plus the number of words; 0 without captions.
      caption_words: words of the longest caption.
      topology: a TPU slice that the config fits, for `plan --topology config`; empty: none.
    """

    num_classes: int = 0
    condition_shape: tuple[int, ...] = ()
    words: int = 0
    caption_words: int = 0
    topology: str = ""


def _choice(name: str, value: Any, known: tuple, where: str = "") -> None:
    if value not in known:
        raise UserError(f"data.{name}={value!r}: expected one of {', '.join(map(repr, known))}{where}.")
