"""TensorFlow Datasets, read with random access from array_record files; reading does not need TensorFlow."""

from typing import Any

import numpy as np

from binlatent.data import captions as caption_files
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import BrokenExample, Example, ImageSource, Opened, held_out
from binlatent.errors import UserError
from binlatent.files import digest, user_path


class TfdsSource(ImageSource):
    """The examples `chosen` (n,) of a TFDS data source."""

    threads = 4

    def __init__(
        self, name: str, data: Any, chosen: np.ndarray, image_key: str, label_key: str | None, caption_key: str = ""
    ):
        super().__init__()
        self._name, self._data, self._chosen = name, data, chosen
        self._image_key, self._label_key, self._caption_key = image_key, label_key, caption_key

    def __len__(self) -> int:
        return len(self._chosen)

    def __repr__(self) -> str:
        return f"TfdsSource({self._name!r}, {len(self)} images)"

    def read(self, index: int) -> Example:
        features = self._data[int(self._chosen[index])]
        example: Example = {"image": features[self._image_key]}
        if self._label_key is not None:
            example["label"] = np.int32(features[self._label_key])
        if self._caption_key:
            captions = _captions(features, self._caption_key.split("/"))
            if not captions:
                raise BrokenExample(f"{self._name}, example {self._chosen[index]}: its {self._caption_key} is empty")
            example["caption"] = captions
        return example


def _captions(value: Any, path: list[str]) -> tuple[str, ...]:
    """The texts of a feature: a single text, an array of texts, or a sequence of dicts with a text each."""
    if isinstance(value, dict):
        return _captions(value[path[0]], path[1:])
    if isinstance(value, bytes | str):
        return caption_files.clean([value.decode("utf-8", "replace") if isinstance(value, bytes) else value])
    return tuple(text for item in np.asarray(value, object).ravel() for text in _captions(item, path))


def open_tfds(options: DataOptions, seed: int) -> Opened:
    """Opens the TFDS set `options.name` in data_dir `options.path` (empty: TFDS's default), prepared as array_record.

    Without a name, `options.path` is the folder of one prepared version, such as `…/cifar10/3.0.2`.
    """
    builder = _builder(options)
    image_key, label_key, class_names = _features(options, builder)
    _check_captions(options, builder)
    train = _read_split(options, builder, options.split)
    if options.validation_split:
        validation = _read_split(options, builder, options.validation_split)
        if shared := _shared(builder, options.split, options.validation_split):
            raise UserError(
                f"data.split='{options.split}' and data.validation_split='{options.validation_split}' have {shared} examples in "
                "common; they must not overlap."
            )
        parts = ((train, np.arange(len(train))), (validation, np.arange(len(validation))))
    else:
        mask = held_out(len(train), options.validation_fraction, seed)
        parts = ((train, np.flatnonzero(~mask)), (train, np.flatnonzero(mask)))
    name = builder.info.full_name
    sources = [TfdsSource(name, data, chosen, image_key, label_key, options.captions) for data, chosen in parts]
    sizes = [(split, info.num_examples, info.shard_lengths) for split, info in sorted(builder.info.splits.items())]
    return Opened(
        train=sources[0], validation=sources[1], class_names=class_names, identity=digest("tfds", name, repr(sizes))
    )


def _shared(builder: Any, one: str, other: str) -> int:
    """How many examples two splits, or parts of them, have in common."""

    def parts(split: str) -> list[tuple[str, int, int]]:
        found = builder.info.splits[split].file_instructions
        return [(i.filename, i.skip, i.skip + (i.examples_in_shard if i.take == -1 else i.take)) for i in found]

    return sum(
        max(0, min(end, stop) - max(begin, start))
        for file, begin, end in parts(one)
        for name, start, stop in parts(other)
        if file == name
    )


def _builder(options: DataOptions) -> Any:
    import tensorflow_datasets as tfds

    if not options.name and not options.path:
        raise UserError("data.name is empty: give the name of a TFDS set, such as cifar10.")
    folder = user_path(options.path).expanduser() if options.path else None
    if not options.name:
        if not (folder / "dataset_info.json").exists():
            raise UserError(
                f"data.path='{options.path}' is not the folder of a prepared TFDS set (no dataset_info.json in it); give "
                "such a folder, or a name in data.name."
            )
        return tfds.builder_from_directory(folder)
    try:
        builder = tfds.builder(options.name, data_dir=folder)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        message = str(error).strip().splitlines()[0]
        raise UserError(
            f"data.name='{options.name}' cannot be opened: {message} Check data.name and data.path."
        ) from error
    if not builder.info.splits:
        raise UserError(f"TFDS set '{options.name}' is not prepared in {builder.data_dir}. {_how(options)}")
    return builder


def _how(options: DataOptions) -> str:
    where = f" --data_dir={options.path}" if options.path else ""
    return (
        "Prepare it once, on any machine (this step needs TensorFlow: pip install 'binlatent[tfds]'): "
        f"tfds build {options.name or '<name>'} --file_format=array_record{where}"
    )


def _features(options: DataOptions, builder: Any) -> tuple[str, str | None, tuple[str, ...]]:
    import tensorflow_datasets as tfds

    features = builder.info.features

    def first(kind: type, preferred: str) -> str | None:
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        return preferred if preferred in keys else next(iter(sorted(keys)), None)

    image_key = first(tfds.features.Image, "image")
    if image_key is None:
        raise UserError(f"TFDS set '{builder.info.full_name}' has no images; its features are {', '.join(features)}.")
    label_key = first(tfds.features.ClassLabel, "label") if options.labels else None
    return image_key, label_key, tuple(features[label_key].names) if label_key else ()


def _check_captions(options: DataOptions, builder: Any) -> None:
    import tensorflow_datasets as tfds

    feature = builder.info.features
    for key in filter(None, options.captions.split("/")):
        while isinstance(feature, tfds.features.Sequence | tfds.features.Dataset) and not hasattr(feature, "keys"):
            feature = feature.feature
        feature = feature[key] if hasattr(feature, "keys") and key in feature else None
    while isinstance(feature, tfds.features.Sequence | tfds.features.Dataset):
        feature = feature.feature
    if options.captions and not isinstance(feature, tfds.features.Text):
        raise UserError(
            f"data.captions='{options.captions}': TFDS set '{builder.info.full_name}' has no such text feature; its "
            f"features are {', '.join(builder.info.features)}."
        )


def _read_split(options: DataOptions, builder: Any, split: str) -> Any:
    try:
        return builder.as_data_source(split)
    except NotImplementedError as error:
        raise UserError(
            f"TFDS set '{builder.info.full_name}' in {builder.data_dir} is not stored as array_record, which random access "
            f"needs. {_how(options)}"
        ) from error
    except (ValueError, KeyError) as error:
        known = ", ".join(builder.info.splits)
        raise UserError(
            f"split '{split}' of TFDS set '{builder.info.full_name}' cannot be read ({error}); its splits are {known}, and "
            "parts such as train[:90%]."
        ) from error
