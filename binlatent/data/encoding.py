"""From a data set to its packed codes, with any number of processes."""

import contextlib
import os
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from binlatent.console import progress, say
from binlatent.data.codes import CodeWriter, code_columns
from binlatent.data.loader import eval_batches
from binlatent.data.manifest import CodeSpec, Manifest
from binlatent.data.options import DataOptions
from binlatent.data.splits import Splits

BATCH_SIZE = 256  # images encoded at a time


def write_codes(
    directory: str | os.PathLike,
    spec: CodeSpec,
    splits: Splits,
    options: DataOptions,
    encode: Callable[[np.ndarray], np.ndarray],
) -> Manifest:
    """Writes the codes of both splits; shards that are there already are kept. Every process must call it.

    Args:
      spec: describes the codes.
      encode: images uint8 (b, h, w, c) → codes bool (b, y, x, k).

    Raises:
      UserError: data cannot be read.
    """
    sources = {"train": splits.train, "validation": splits.validation}
    writer = CodeWriter(directory, spec, examples={name: len(source) for name, source in sources.items()})
    missing = writer.missing(jax.process_index(), jax.process_count())
    count = sum(writer.span(*shard)[1] for shard in missing)
    with progress(count, "encode") if missing else contextlib.nullcontext() as bar:
        for split, index in missing:
            start, limit = writer.span(split, index)
            with writer.shard(split, index) as write:
                batches = eval_batches(
                    sources[split], options, batch_size=BATCH_SIZE, start=start, limit=limit, captions=spec.captions
                )
                for batch in batches:
                    write(**_columns(encode, batch, spec))
                    bar.update(int(batch["mask"].sum()))
    multihost_utils.sync_global_devices("codes written")
    manifest = writer.finish() if jax.process_index() == 0 else None
    multihost_utils.sync_global_devices("manifest written")
    if not missing:
        say("codes: done")
    return manifest or Manifest.load(directory)


def _columns(encode: Callable, batch: dict[str, np.ndarray], spec: CodeSpec) -> dict[str, np.ndarray]:
    """The columns of a record for the examples of a batch that count."""
    mask = batch["mask"]

    def codes(images):
        return np.packbits(encode(images).reshape(len(images), -1), axis=-1)

    columns = {"code": codes(batch["image"])[mask]} | code_columns(batch, spec)
    if spec.flips:
        columns["flipped"] = codes(batch["image"][:, :, ::-1])[mask]
    return columns
