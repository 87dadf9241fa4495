import dataclasses
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from binlatent.data import loader
from binlatent.data.captions import split
from binlatent.data.loader import Validation, batch_spec, eval_batches, train_batches
from binlatent.data.options import DataOptions
from binlatent.data.sources.arrays import ArraySource
from binlatent.data.splits import open_splits
from binlatent.data.spread import Spread
from binlatent.data.strings import PackedStrings
from binlatent.errors import UserError
from tests.data.test_splits import Damaged
from tests.processes import ROOT

OPTIONS = DataOptions(resolution=8, channels=3, flip=True, crop="random")


@pytest.fixture(scope="module")
def source():
    """22 wide images, so that crops and flips are visible; the label is the index."""
    images = np.random.default_rng(0).integers(0, 256, (22, 8, 12, 3), np.uint8)
    return ArraySource("noise", images, np.arange(22, dtype=np.int32))


def take(batches, count):
    taken = list(itertools.islice(batches, count))
    if hasattr(batches, "close"):
        batches.close()
    return taken


def same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_batches_have_the_shapes_and_types(source):
    batch = next(train_batches(source, OPTIONS, seed=0, batch_size=8))
    assert batch["image"].shape == (8, 8, 8, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == (8,)
    assert batch["label"].dtype == np.int32


@pytest.mark.parametrize("step", [1, 5, 9])
def test_resuming_at_a_step_continues_the_same_stream(source, step):
    whole = take(train_batches(source, OPTIONS, seed=3, batch_size=8), 12)
    resumed = take(train_batches(source, OPTIONS, seed=3, batch_size=8, start_step=step), 12 - step)
    same(whole[step:], resumed)


@pytest.mark.parametrize(("count", "step"), [(2, 0), (4, 3)])
def test_processes_together_read_the_global_batch_in_order(source, count, step):
    whole = take(train_batches(source, OPTIONS, seed=1, batch_size=8), 6)[step:]
    parts = [
        take(
            train_batches(source, OPTIONS, seed=1, batch_size=8, start_step=step, process_index=p, process_count=count),
            6 - step,
        )
        for p in range(count)
    ]
    together = [
        {name: np.concatenate([b[name] for b in rows]) for name in rows[0]} for rows in zip(*parts, strict=True)
    ]
    same(whole, together)


def test_every_epoch_sees_every_example_once_in_another_order_with_other_augmentation(source):
    batches = take(train_batches(source, OPTIONS, seed=0, batch_size=11), 4)
    first, second = (np.concatenate([batch["label"] for batch in pair]) for pair in (batches[:2], batches[2:]))
    assert sorted(first) == sorted(second) == list(range(22))
    assert list(first) != list(second)
    images = [
        dict(zip(labels.tolist(), np.concatenate([batch["image"] for batch in pair]), strict=True))
        for labels, pair in ((first, batches[:2]), (second, batches[2:]))
    ]
    assert sum(not np.array_equal(images[0][i], images[1][i]) for i in range(22)) > 10


def test_the_seed_changes_the_order(source):
    first, second = (take(train_batches(source, OPTIONS, seed=s, batch_size=8), 1)[0]["label"] for s in (0, 1))
    assert list(first) != list(second)


def test_workers_do_not_change_the_stream(folder, monkeypatch):
    monkeypatch.setattr(loader, "WORKERS_FROM", 0)
    options = {"source": "folder", "path": str(folder), "resolution": 8, "flip": True}
    part = open_splits(DataOptions(**options), seed=0).train
    alone = take(train_batches(part, DataOptions(**options), seed=0, batch_size=4), 9)
    workers = take(train_batches(part, DataOptions(**options, workers=2), seed=0, batch_size=4, start_step=2), 7)
    same(alone[2:], workers)
    same(
        take(eval_batches(part, DataOptions(**options), batch_size=4), 99),
        take(eval_batches(part, DataOptions(**options, workers=2), batch_size=4), 99),
    )


def test_workers_outlive_the_signals_of_their_group(folder):
    """Ctrl-C and SIGTERM reach them too, and the run needs its batches until it has saved."""
    splits = open_splits(DataOptions(source="folder", path=str(folder), resolution=8), seed=0)
    batches = train_batches(splits.train, DataOptions(resolution=8, workers=1), seed=0, batch_size=4)
    next(batches)
    workers = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM):
        for worker in workers:
            os.kill(worker.pid, number)
    time.sleep(0.2)
    assert workers and all(worker.is_alive() for worker in workers)
    take(batches, 50)  # more than were waiting


def test_workers_end_with_a_run_that_ends_at_once(folder, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(f"""
import multiprocessing, os
from binlatent.data.loader import train_batches
from binlatent.data.options import DataOptions
from binlatent.data.splits import open_splits

if __name__ == "__main__":
    options = DataOptions(source="folder", path={str(folder)!r}, resolution=8, workers=1)
    batches = train_batches(open_splits(options, seed=0).train, options, seed=0, batch_size=4)
    next(batches)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    os._exit(1)
""")
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    workers, end = [int(pid) for pid in done.stdout.split()], time.monotonic() + 20
    while (left := [pid for pid in workers if alive(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert workers and not left, done.stderr.decode()[-2000:]


def alive(pid):
    """Whether a process runs; one that has ended may still be listed."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_few_examples_are_evaluated_without_workers(source, monkeypatch):
    """Starting them takes seconds."""
    workers = []
    monkeypatch.setattr(loader, "_iterate", lambda *args: workers.append(args[-1]) or iter(()))
    monkeypatch.setattr(loader, "WORKERS_FROM", 9)
    options = dataclasses.replace(OPTIONS, workers=2)
    for limit in (8, 9):
        eval_batches(source, options, batch_size=4, limit=limit)
    train_batches(source, options, seed=0, batch_size=4)
    assert workers == [0, 2, 2]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 24])
@pytest.mark.parametrize(("start", "limit"), [(0, None), (0, 9), (5, 10), (20, 100), (0, 8)])
def test_evaluation_counts_each_example_once(source, count, batch_size, start, limit):
    parts = [
        list(
            eval_batches(
                source, OPTIONS, batch_size=batch_size, start=start, limit=limit, process_index=p, process_count=count
            )
        )
        for p in range(count)
    ]
    assert len({len(part) for part in parts}) == 1
    rows = [batch for together in zip(*parts, strict=True) for batch in together]
    assert all(batch["image"].shape == (batch_size // count, 8, 8, 3) for batch in rows)
    seen = np.concatenate([batch["label"][batch["mask"]] for batch in rows])
    stop = 22 if limit is None else min(22, start + limit)
    assert list(seen) == list(range(start, stop))


def test_evaluation_cuts_at_the_centre_and_does_not_flip(source):
    batch = next(eval_batches(source, OPTIONS, batch_size=4))
    np.testing.assert_array_equal(batch["image"][1], source.read(1)["image"][:, 2:10])


def test_an_empty_range_gives_no_batch(source):
    assert list(eval_batches(source, OPTIONS, batch_size=4, limit=0)) == []


def test_unreadable_examples_are_replaced_in_training_and_masked_in_evaluation():
    options = DataOptions(resolution=1, channels=1)
    source = Damaged(10, {3, 9})
    batches = list(eval_batches(source, options, batch_size=4))
    seen = np.concatenate([batch["image"][batch["mask"]].ravel() for batch in batches])
    assert list(seen) == [0, 1, 2, 4, 5, 6, 7, 8]
    epoch = np.concatenate([b["image"].ravel() for b in take(train_batches(source, options, seed=0, batch_size=5), 2)])
    assert sorted(epoch) == [0, 0, 1, 2, 4, 4, 5, 6, 7, 8]
    same(
        take(train_batches(Damaged(10, {3, 9}), options, seed=0, batch_size=5, start_step=3), 3),
        take(train_batches(source, options, seed=0, batch_size=5), 6)[3:],
    )


@pytest.mark.parametrize("batches", [lambda *a, **k: train_batches(*a, seed=0, **k), eval_batches])
def test_an_indivisible_batch_size_names_the_numbers(source, batches):
    with pytest.raises(UserError, match=r"batch size 6 is not divisible by 4 processes"):
        batches(source, OPTIONS, batch_size=6, process_count=4)
    with pytest.raises(UserError, match=r"batch size 0"):
        batches(source, OPTIONS, batch_size=0)


def test_a_set_smaller_than_a_batch_names_the_numbers(source):
    with pytest.raises(UserError, match=r"batch size 23 is larger than the 22 examples"):
        train_batches(source, OPTIONS, seed=0, batch_size=23)


@pytest.mark.parametrize("num_batches", [0, 2])
def test_an_evaluation_is_the_same_each_time_and_opens_its_readers_once(source, num_batches, monkeypatch):
    opened = []
    real = loader._iterate
    monkeypatch.setattr(loader, "_iterate", lambda *args: opened.append(args) or real(*args))
    batches = Validation(source, OPTIONS, batch_size=8, num_batches=num_batches)
    first, second = list(batches), list(batches)
    assert len(first) == (num_batches or 3) and len(opened) == 1
    same(first, second)
    read = Spread(source, 16) if num_batches else source
    same(first, take(eval_batches(read, OPTIONS, batch_size=8), len(first)))


def test_the_shapes_of_a_batch_are_known_without_one(source, monkeypatch):
    batch = next(train_batches(source, OPTIONS, seed=0, batch_size=8))
    monkeypatch.setattr(loader, "_iterate", None)  # no pipeline is opened
    spec = batch_spec(source, OPTIONS, 16)
    assert {k: (v.shape, v.dtype) for k, v in spec.items()} == {
        k: ((16, *v.shape[1:]), v.dtype) for k, v in batch.items()
    }


def test_the_batch_size_is_checked_before_training(source):
    loader.check_batch_size(source, 22)
    with pytest.raises(UserError, match=r"larger than the 22 examples"):
        loader.check_batch_size(source, 23)
    assert loader.fitting_batch_size(1000, 64, 4) == 64
    assert loader.fitting_batch_size(22, 64, 4) == 20
    assert loader.fitting_batch_size(22, 64) == 22
    with pytest.raises(ValueError, match="there are 3 training examples, and a batch has at least 4"):
        loader.fitting_batch_size(3, 64, 4)
    with pytest.raises(ValueError, match="a multiple of 4 is expected"):
        loader.fitting_batch_size(1000, 66, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_captions_of_images_are_text_if_requested(workers, monkeypatch):
    monkeypatch.setattr(loader, "WORKERS_FROM", 0)
    texts = [("one",), ("two", "zwei 漢"), ("three",)]
    source = ArraySource("words", np.zeros((3, 8, 8, 1), np.uint8), captions=PackedStrings.of(map("\n".join, texts)))
    options = DataOptions(resolution=8, channels=1, workers=workers)
    assert next(iter(train_batches(source, options, seed=0, batch_size=2))).keys() == {"image"}
    batches = take(eval_batches(source, options, batch_size=2, captions=True), 9)
    assert [split(text) for batch in batches for text in batch["caption"][batch["mask"]]] == texts
    assert eval_batches(source, options, batch_size=2).__next__().keys() == {"image", "mask"}


def test_embeddings_stay_out_of_the_autoencoder_s_batches():
    source = ArraySource("e", np.zeros((3, 8, 8, 1), np.uint8), conditions=np.ones((3, 77, 9), np.float32))
    assert next(train_batches(source, OPTIONS, seed=0, batch_size=2)).keys() == {"image"}
    assert "condition" in next(eval_batches(source, OPTIONS, batch_size=2))


def test_a_part_of_a_sorted_source_is_spread_over_it(source):
    """Folders are sorted by class: the first batches would be of the first classes alone."""
    batches = take(Validation(source, OPTIONS, batch_size=4, num_batches=2), 2)
    seen = np.concatenate([batch["label"] for batch in batches])
    assert list(seen) == [0, 3, 6, 9, 12, 15, 18, 21] and all(batch["mask"].all() for batch in batches)
    assert list(Spread(source, 99)._indices) == list(range(22))
    damaged = Spread(Damaged(10, {3, 9}), 4)  # 0, 3, 6, 9
    assert [damaged[i]["image"].item() for i in range(4)] == [0, 4, 6, 0]
    assert [damaged.counted(i) for i in range(4)] == [True, False, True, False]
