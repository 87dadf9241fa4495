"""The text encoder that a config or a checkpoint names."""

from collections.abc import Mapping, Sequence
from typing import Any

from binlatent.text.encoder import TextEncoder, check_record
from binlatent.text.options import TextOptions


def open_encoder(options: TextOptions, captions: Sequence[str] = ()) -> TextEncoder:
    """The encoder that a config names.

    Args:
      captions: of the training data, from which `own` takes its words.

    Raises:
      UserError: its weights are not here, a package is missing, or the user's file fails.
    """
    kind, _, rest = options.encoder.partition(":")
    if kind == "own":
        from binlatent.text.words import WordEncoder

        return WordEncoder.of(captions, length=options.length, words=options.words)
    if kind in ("clip", "t5"):
        from binlatent.text.pretrained import PretrainedEncoder

        return PretrainedEncoder.load(kind, rest, length=options.length, use=options.use)
    from binlatent.text.user import UserEncoder

    return UserEncoder.load(kind, rest, use=options.use)


def recorded_encoder(record: Mapping[str, Any], options: TextOptions) -> TextEncoder:
    """The encoder that a checkpoint was trained with.

    Args:
      record: what the checkpoint says of it.
      options: where the config finds it.

    Raises:
      UserError: as `open_encoder`; also an encoder with other weights than the checkpoint's.
    """
    if record.get("encoder") == "own":
        from binlatent.text.words import WordEncoder

        return WordEncoder(record)
    found = open_encoder(options)
    check_record(record, found.record)
    return found
