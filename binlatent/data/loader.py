"""Batches as a function of (seed, step), for any number of processes and workers.

The order of operations is the contract: the whole data set is shuffled anew for every epoch, each example gets its own
random generator from its position, and process p takes rows p·B/n … (p+1)·B/n of every global batch. So a run that
resumes needs only its step, and the global batch does not depend on how many hosts or workers read it.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from binlatent.data import captions as caption_files
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import Source
from binlatent.errors import UserError

Batch = dict[str, np.ndarray]

# Reading small images is bound by the interpreter, for which threads only queue: measured on CIFAR-10, one thread reads
# twice as many as four. At 256 pixels four threads read twice as many as one.
ONE_THREAD_UP_TO = 64

# Starting worker processes takes seconds; fewer examples than this are evaluated sooner without them.
WORKERS_FROM = 4096


def train_batches(
    source: Source,
    options: DataOptions,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Endless shuffled batches, this process's rows of each.

    Args:
      source: what to read.
      options: augmentation and workers.
      seed: of the order and of the augmentation.
      batch_size: B, over all processes.
      start_step: the batch to begin with; batch i is the same whether reached from 0 or begun with.
      process_index: this process.
      process_count: n.

    Returns:
      An iterator of dicts of arrays (B/n, ...); `close()` ends its workers.

    Raises:
      UserError: B does not divide by n, or the source holds fewer than B examples.
    """
    check_batch_size(source, batch_size, process_count)
    rows = batch_size // process_count
    data = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(source.train_transform(options))
    data = data.batch(rows, drop_remainder=True)[process_index::process_count][start_step:]
    return _iterate(data, source, options, options.workers)


def check_batch_size(source: Source, batch_size: int, process_count: int = 1) -> None:
    """Whether a source can be trained from in batches of this size; to be asked before anything is trained.

    Raises:
      UserError: the batch size does not divide by the number of processes, or the source holds fewer examples.
    """
    _rows(batch_size, process_count)
    if len(source) < batch_size:
        raise UserError(
            f"batch size {batch_size} is larger than the {len(source)} examples of {source!r}; use a batch size of "
            f"{len(source)} or less, or more examples."
        )


def fitting_batch_size(count: int, asked: int, divisor: int = 1) -> int:
    """The batch size for `count` training examples: the one asked for, or of a small set the largest that fits.

    Args:
      count: examples.
      asked: what a set that is large enough gets.
      divisor: the result is a multiple of it, such as the number of devices.

    Raises:
      ValueError: the one asked for is no multiple of the divisor, or there are fewer examples than that.
    """
    if asked < 1 or asked % divisor:
        raise ValueError(f"a multiple of {divisor} is expected")
    if count < divisor:
        raise ValueError(f"there are {count} training examples, and a batch has at least {divisor}")
    return min(asked, count // divisor * divisor)


def eval_batches(
    source: Source,
    options: DataOptions,
    *,
    batch_size: int,
    start: int = 0,
    limit: int | None = None,
    captions: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    endless: bool = False,
) -> Iterator[Batch]:
    """Examples `start` … `start + limit` once, in order; every process gets the same number of batches.

    Args:
      source: what to read.
      options: resolution, channels and workers.
      batch_size: B, over all processes; need not divide the number of examples.
      start: the first example.
      limit: how many examples; None: all after that. Give it rather than stop early: workers are started only for
        `WORKERS_FROM` examples or more.
      captions: whether batches of images have `caption`, str (B/n,): all captions of an image, one on each line.
      process_index: this process.
      process_count: n.
      endless: begin again after the last batch.

    Returns:
      A finite iterator of dicts of arrays (B/n, ...) with `mask` bool (B/n,): False where the last batch is filled up
      and where an unreadable example was replaced. Over all batches and processes each readable example is counted once.

    Raises:
      UserError: B does not divide by n.
    """
    rows = _rows(batch_size, process_count)
    stop = len(source) if limit is None else min(len(source), start + limit)
    batches = max(0, -(-(stop - start) // batch_size))
    data = grain.MapDataset.range(start, start + batches * batch_size)
    data = data.map(_ReadForEval(source, stop, source.eval_transform(options), captions))
    workers = options.workers if stop - start >= WORKERS_FROM else 0
    data = data.batch(rows)[process_index::process_count]
    return _iterate(data.repeat() if endless else data, source, options, workers)


def first_images(source: Source, options: DataOptions, num: int) -> np.ndarray:
    """The first `num` images of a source, uint8 (n, h, w, c); fewer where some cannot be read."""
    batch = next(iter(eval_batches(source, options, batch_size=num, limit=num)))
    return batch["image"][batch["mask"]]


class Validation:
    """The batches of one evaluation, the same at every iteration; what reads them stays between two of them.

    Args:
      num_batches: how many; 0 for all of the source.
      source, options, batch_size, process_index, process_count: see `eval_batches`.
    """

    def __init__(
        self,
        source: Source,
        options: DataOptions,
        *,
        batch_size: int,
        num_batches: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ):
        every = -(-len(source) // batch_size)
        self._num = min(num_batches or every, every)
        self._open = functools.partial(
            eval_batches,
            source,
            options,
            batch_size=batch_size,
            limit=self._num * batch_size,
            process_index=process_index,
            process_count=process_count,
            endless=True,
        )
        self._batches: Iterator[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._batches is None:
            self._batches = self._open()
        for _ in range(self._num):
            yield next(self._batches)


def batch_spec(source: Source, options: DataOptions, batch_size: int) -> dict[str, Any]:
    """Shapes (B, ...) and types of a training batch over all processes, of one example; no worker is started."""
    import jax  # not above: workers, which import this file, do without

    example = grain.MapDataset.source(source).seed(0).random_map(source.train_transform(options))[0]
    arrays = {name: np.asarray(value) for name, value in example.items()}
    return {name: jax.ShapeDtypeStruct((batch_size, *x.shape), x.dtype) for name, x in arrays.items()}


class _ReadForEval:
    """Example i, or the last one masked out where i lies beyond the end."""

    def __init__(self, source: Source, stop: int, transform: Any, captions: bool):
        self._source, self._stop, self._transform, self._captions = source, stop, transform, captions

    def __call__(self, index: int) -> dict:
        inside = min(int(index), self._stop - 1)
        read = self._source[inside]
        example = self._transform(read)
        if self._captions:
            example["caption"] = caption_files.join(read["caption"])
        return {**example, "mask": np.bool_(index < self._stop and self._source.counted(inside))}


def _rows(batch_size: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch size {batch_size} does not divide over {process_count} processes; use a multiple of {process_count}."
        )
    return batch_size // process_count


def _iterate(data: grain.MapDataset, source: Source, options: DataOptions, workers: int) -> Iterator[Batch]:
    threads = min(source.threads, os.cpu_count() or 1, 1 if options.resolution <= ONE_THREAD_UP_TO else source.threads)
    # The buffer counts whole batches.
    batches = data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain's workers read absl flags, which a library user never parsed
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches)
