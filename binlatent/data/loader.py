"""Batches as a function of (seed, step), for any number of processes and workers.

The data set is reshuffled every epoch, each example's random generator is derived from its position, and process p
takes rows p·B/n … (p+1)·B/n of every global batch. So a run needs only its step to resume, and the global batch does not
depend on how many hosts or workers read it.
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from binlatent.data import captions as caption_files
from binlatent.data.options import DataOptions
from binlatent.data.sources.base import Source
from binlatent.data.spread import Spread
from binlatent.errors import UserError

Batch = dict[str, np.ndarray]

# Reading small images is limited by the Python interpreter, so more threads only wait for each other: on CIFAR-10, one
# thread read twice as many images as four; at 256 pixels, four threads read twice as many as one.
ONE_THREAD_UP_TO = 64

# Starting worker processes takes seconds; evaluating fewer examples than this is faster without them.
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
    """Shuffled batches without end: this process's rows of each.

    Args:
      source: the examples.
      options: augmentation and workers.
      seed: of the order and the augmentation.
      batch_size: B, over all processes.
      start_step: index of the first batch; batch i is the same for every start.
      process_index: this process.
      process_count: n.

    Returns:
      An iterator of dicts of arrays (B/n, ...); `close()` ends its workers.

    Raises:
      UserError: B is not divisible by n, or the source has fewer than B examples.
    """
    check_batch_size(source, batch_size, process_count)
    rows = batch_size // process_count
    data = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(source.train_transform(options))
    data = data.batch(rows, drop_remainder=True)[process_index::process_count][start_step:]
    return _iterate(data, source, options, options.workers)


def check_batch_size(source: Source, batch_size: int, process_count: int = 1) -> None:
    """Checks, before any training, that a source has enough examples for this batch size.

    Raises:
      UserError: the batch size is not divisible by the number of processes, or the source has fewer examples.
    """
    _rows(batch_size, process_count)
    if len(source) < batch_size:
        raise UserError(
            f"batch size {batch_size} is larger than the {len(source)} examples of {source!r}; use a batch size of "
            f"at most {len(source)}, or more examples."
        )


def fitting_batch_size(count: int, batch_size: int, divisor: int = 1) -> int:
    """The batch size for `count` training examples: the configured one, or the largest that fits a smaller set.

    Args:
      count: number of training examples.
      batch_size: the configured batch size.
      divisor: the result is a multiple of it (for example the number of devices).

    Raises:
      ValueError: `batch_size` is not a multiple of the divisor, or there are fewer examples than the divisor.
    """
    if batch_size < 1 or batch_size % divisor:
        raise ValueError(f"a multiple of {divisor} is expected")
    if count < divisor:
        raise ValueError(f"there are {count} training examples, and a batch has at least {divisor}")
    return min(batch_size, count // divisor * divisor)


def eval_batches(
    source: Source,
    options: DataOptions,
    *,
    batch_size: int,
    start: int = 0,
    limit: int | None = None,
    captions: bool = False,
    views: int = 0,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    endless: bool = False,
) -> Iterator[Batch]:
    """Examples `start` … `start + limit` once, in order; every process gets the same number of batches.

    Args:
      source: the examples.
      options: resolution, channels and workers.
      batch_size: B, over all processes; need not divide the number of examples.
      start: index of the first example.
      limit: number of examples; None: all from `start` on. Set it rather than stop iterating early, because workers are
        started only for at least `WORKERS_FROM` examples.
      captions: whether batches of images have `caption`, str (B/n,): all captions of an image, one per line.
      views: how many crops and flips, as training has them, are in batches of images as `views` (B/n, views, h, w, c).
      seed: of these; view j of example i is a function of (seed, i, j).
      process_index: this process.
      process_count: n.
      endless: begin again after the last batch.

    Returns:
      An iterator of dicts of arrays (B/n, ...) with `mask` bool (B/n,): False for padding of the last batch and for
      replaced unreadable examples. Over all batches and processes, each readable example is counted once.

    Raises:
      UserError: B is not divisible by n.
    """
    rows = _rows(batch_size, process_count)
    stop = len(source) if limit is None else min(len(source), start + limit)
    batches = max(0, -(-(stop - start) // batch_size))
    data = grain.MapDataset.range(start, start + batches * batch_size)
    augment = functools.partial(_views, source.train_transform(options), seed, views) if views else None
    data = data.map(_ReadForEval(source, stop, source.eval_transform(options), captions, augment))
    workers = options.workers if stop - start >= WORKERS_FROM else 0
    data = data.batch(rows)[process_index::process_count]
    return _iterate(data.repeat() if endless else data, source, options, workers)


def captioned_images(source: Source, options: DataOptions, num: int) -> tuple[np.ndarray, list[str]]:
    """`num` images of a source with captions, spread evenly over it, uint8 (n, h, w, c), and the first caption of each; fewer
    where some cannot be read."""
    batch = next(eval_batches(Spread(source, num), options, batch_size=num, captions=True))
    return batch["image"][batch["mask"]], [caption_files.split(text)[0] for text in batch["caption"][batch["mask"]]]


def spread_images(source: Source, options: DataOptions, num: int) -> np.ndarray:
    """`num` images spread evenly over a source, uint8 (n, h, w, c); fewer where some cannot be read."""
    batch = next(eval_batches(Spread(source, num), options, batch_size=num))
    return batch["image"][batch["mask"]]


class Validation:
    """The batches of one evaluation, the same at every iteration; the workers are kept between iterations.

    Args:
      num_batches: number of batches, of examples spread evenly over the source; 0 for all of it.
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
        available = -(-len(source) // batch_size)
        self._num = min(num_batches or available, available)
        self._open = functools.partial(
            eval_batches,
            Spread(source, self._num * batch_size),
            options,
            batch_size=batch_size,
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
    """Shapes (B, ...) and types of a training batch over all processes, from one example and without workers."""
    import jax  # here, because workers import this file and do not need JAX

    example = grain.MapDataset.source(source).seed(0).random_map(source.train_transform(options))[0]
    arrays = {name: np.asarray(value) for name, value in example.items()}
    return {name: jax.ShapeDtypeStruct((batch_size, *x.shape), x.dtype) for name, x in arrays.items()}


class _ReadForEval:
    """Reads example i; beyond the end, the last example with mask False."""

    def __init__(self, source: Source, stop: int, transform: Any, captions: bool, augment: Any):
        self._source, self._stop, self._transform, self._captions = source, stop, transform, captions
        self._augment = augment

    def __call__(self, index: int) -> dict:
        clipped = min(int(index), self._stop - 1)
        raw = self._source[clipped]
        example = self._transform(raw)
        if self._captions:
            example["caption"] = caption_files.join(raw["caption"])
        if self._augment is not None:
            example["views"] = self._augment(raw, clipped)
        return {**example, "mask": np.bool_(index < self._stop and self._source.counted(clipped))}


def _views(transform: Any, seed: int, num: int, raw: dict, index: int) -> np.ndarray:
    """Crops and flips of an image, uint8 (num, h, w, c)."""
    return np.stack([transform(raw, np.random.default_rng([seed, index, view]))["image"] for view in range(num)])


def _rows(batch_size: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"batch size {batch_size} is not divisible by {process_count} processes; use a multiple of {process_count}."
        )
    return batch_size // process_count


def _ignore_signals(index: int, count: int) -> None:
    """Of a worker: Ctrl-C and a scheduler's SIGTERM reach the whole process group, but the run needs its batches until it has
    saved. The worker ends with the run, however that ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def follow(run):
        run.join()
        os._exit(1)

    if (run := multiprocessing.parent_process()) is not None:
        threading.Thread(target=follow, args=(run,), daemon=True).start()


def _iterate(data: grain.MapDataset, source: Source, options: DataOptions, workers: int) -> Iterator[Batch]:
    threads = min(source.threads, os.cpu_count() or 1, 1 if options.resolution <= ONE_THREAD_UP_TO else source.threads)
    # prefetch_buffer_size is in batches
    batches = data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain's workers read absl flags, which are unparsed in library use
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_ignore_signals)
    return iter(batches)
