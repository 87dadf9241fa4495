"""From a data set to its packed codes, with any number of processes."""

import contextlib
import os
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from binlatent import prng
from binlatent.console import progress, say
from binlatent.data.codes import CodeWriter, code_columns
from binlatent.data.loader import eval_batches
from binlatent.data.manifest import CodeSpec, Manifest
from binlatent.data.options import CodeOptions, DataOptions
from binlatent.data.splits import Splits
from binlatent.typing import PRNGKey

# images that are encoded at a time; several such batches wait in memory
SMALLEST_BATCH, LARGEST_BATCH, BATCH_BYTES = 8, 256, 2**26

# (images uint8 (b, h, w, c); None for thresholded codes, or a key; the place of the first image) → codes bool (b, y, x, k)
Encode = Callable[[np.ndarray, PRNGKey | None, int], np.ndarray]


def write_codes(
    directory: str | os.PathLike,
    splits: Splits,
    data: DataOptions,
    options: CodeOptions,
    encode: Encode,
    *,
    autoencoder: str,
    code_shape: tuple[int, int, int],
    seed: int,
    drawn: bool = True,
) -> Manifest:
    """Writes the codes of both splits; shards that are there already are kept. Every process must call it.

    Args:
      autoencoder: its fingerprint.
      code_shape: (y, x, k).
      seed: of the views; those of an example are a function of the seed and its place in its split.
      drawn: codes of views but the first are drawn from the bits' probabilities; False thresholds them too.

    Raises:
      UserError: data cannot be read.
    """
    spec = CodeSpec(
        autoencoder=autoencoder,
        data=splits.fingerprint,
        code_shape=code_shape,
        num_classes=splits.num_classes,
        class_names=splits.class_names,
        condition_shape=splits.condition_shape,
        captions=splits.captions,
        flips=options.flips,
        views=options.views,
    )
    pixels = data.resolution**2 * data.channels * options.views
    batch_size = min(LARGEST_BATCH, max(SMALLEST_BATCH, BATCH_BYTES // pixels))
    sources = {"train": splits.train, "validation": splits.validation}
    writer = CodeWriter(directory, spec, examples={name: len(source) for name, source in sources.items()})
    missing = writer.missing(jax.process_index(), jax.process_count())
    count = sum(writer.span(*shard)[1] for shard in missing)
    with progress(count, "encode") if missing else contextlib.nullcontext() as bar:
        for split, index in missing:
            start, limit = writer.span(split, index)
            with writer.shard(split, index) as write:
                batches = eval_batches(
                    sources[split], data, batch_size=batch_size, start=start, limit=limit, captions=spec.captions,
                    views=spec.views - 1, seed=seed,
                )  # fmt: skip
                for i, batch in enumerate(batches):
                    columns = _codes(encode, batch, spec, seed if drawn else None, start + i * batch_size)
                    write(**columns, **code_columns(batch, spec))
                    bar.update(int(batch["mask"].sum()))
    multihost_utils.sync_global_devices("codes written")
    manifest = writer.finish() if jax.process_index() == 0 else None
    multihost_utils.sync_global_devices("manifest written")
    if not missing:
        say("codes: done")
    return manifest or Manifest.load(directory)


def _codes(
    encode: Encode, batch: dict[str, np.ndarray], spec: CodeSpec, seed: int | None, start: int
) -> dict[str, np.ndarray]:
    """The packed codes of a batch's examples that count; the first one is example `start` of its split."""
    views = [batch["image"], *np.moveaxis(batch["views"], 1, 0)] if spec.views > 1 else [batch["image"]]
    columns = []
    for mirrored in (False, True)[: 1 + spec.flips]:
        for i, images in enumerate(views):
            drawn = i > 0 and seed is not None
            key = prng.stream(prng.root(seed), "encode", len(columns)) if drawn else None
            codes = encode(images[:, :, ::-1] if mirrored else images, key, start)
            columns.append(np.packbits(codes.reshape(len(images), -1), axis=-1)[batch["mask"]])
    return {"code": columns[0]} | ({"views": np.stack(columns[1:], 1)} if columns[1:] else {})
