"""The training and validation splits of a data set."""

import dataclasses
import json

from binlatent.data.options import DataOptions
from binlatent.data.sources.base import Source
from binlatent.errors import UserError
from binlatent.files import digest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """The training and validation splits of a data set.

    Attributes:
      train: training examples.
      validation: held-out examples; never in `train`.
      num_classes: 0 without classes, or where `labels` is False.
      class_names: names in the order of the labels; empty without classes.
      condition_shape: shape of one example's `condition`; empty without embeddings.
      captions: whether the examples have captions.
      fingerprint: changes with the examples, the split and the options that select what is read; not with augmentation.
    """

    train: Source
    validation: Source
    num_classes: int
    class_names: tuple[str, ...]
    condition_shape: tuple[int, ...]
    captions: bool
    fingerprint: str


def open_splits(options: DataOptions, *, seed: int) -> Splits:
    """Opens the training and validation splits of the data set that `options` describe.

    Raises:
      UserError: the data set is missing, empty, too small to split, or not in the format of its source.
    """
    if options.source == "folder":
        from binlatent.data.sources.folder import open_folder as opener
    elif options.source == "tfds":
        from binlatent.data.sources.tfds import open_tfds as opener
    elif options.source == "shards":
        from binlatent.data.sources.shards import open_shards as opener
    elif options.source == "npz":
        from binlatent.data.sources.arrays import open_npz as opener
    elif options.source == "captioned_digits":
        from binlatent.data.sources.captioned_digits import open_captioned_digits as opener
    elif options.source == "emoji":
        from binlatent.data.sources.emoji import open_emoji as opener
    else:
        from binlatent.data.sources.arrays import open_digits as opener
    opened = opener(options, seed)
    for name, part in (("training", opened.train), ("validation", opened.validation)):
        if len(part) == 0:
            raise UserError(f"{part!r}: the {name} split is empty; at least two examples are needed, one per split.")
    names = opened.class_names if options.labels else ()
    condition = opened.train[0].get("condition") if options.embeddings else None
    if condition is not None and condition.ndim not in (1, 2):
        raise UserError(
            f"{opened.train!r}: the first embedding has shape {condition.shape}; (features,) or (tokens, features) is expected "
            "for an image. Remove axes of length 1 with np.squeeze before np.save."
        )
    selection = {
        name: getattr(options, name)
        for name in (
            "split",
            "validation_split",
            "validation_fraction",
            "resolution",
            "channels",
            "labels",
            "embeddings",
            "captions",
        )
    }
    return Splits(
        train=opened.train,
        validation=opened.validation,
        num_classes=len(names),
        class_names=names,
        condition_shape=() if condition is None else condition.shape,
        captions=bool(options.captions),
        fingerprint=digest(json.dumps([opened.identity, seed, names, selection])),
    )


def check_conditions(splits: Splits, *, labels_with_embeddings: bool) -> None:
    """Checks that the prior can use the data set's conditions. Call it before training stage 1, which fixes
    `data.labels` and `data.embeddings`.

    Args:
      splits: the data set.
      labels_with_embeddings: whether the prior accepts both.

    Raises:
      UserError: the data have classes and embeddings, but the prior accepts only one of them.
    """
    if splits.num_classes and splits.condition_shape and not labels_with_embeddings:
        raise UserError(
            f"{splits.train!r} has {splits.num_classes} classes and embeddings of shape {splits.condition_shape}, but this "
            "prior is conditioned on only one of them; set data.labels=False or data.embeddings=''."
        )
