"""Records of a run, on a disk and in a bucket."""

import threading

import numpy as np
import pytest

from binlatent.train import metrics
from binlatent.train.metrics import MetricWriter, read_records
from tests.data.test_remote import bucket  # noqa: F401 — a fixture


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    return tmp_path if request.param == "disk" else request.getfixturevalue("bucket") / "run"


def write(folder, start, steps):
    writer = MetricWriter(folder, start)
    for step in steps:
        writer.write(step, {"loss": 1 / step}, "train")
    writer.close()


def test_a_resumed_run_reads_as_if_there_had_been_no_interruption(folder, monkeypatch):
    monkeypatch.setattr(metrics, "CHUNK", 3)
    write(folder, 0, range(1, 9))
    assert [r["step"] for r in read_records(folder)] == [*range(1, 9)]
    write(folder, 5, range(6, 14))
    assert [(r["step"], r["train/loss"]) for r in read_records(folder)] == [(s, 1 / s) for s in range(1, 14)]


def test_events_that_cannot_be_written_end_and_training_goes_on(tmp_path, monkeypatch, capsys):
    writer = MetricWriter(tmp_path)
    thread = writer._board._get_file_writer().event_writer._worker

    def full(data):
        raise OSError("no space")

    monkeypatch.setattr(thread._record_writer, "write_event", full)
    monkeypatch.setattr(threading, "excepthook", lambda given: None)
    writer.write(1, {"loss": 1.0}, "train")
    thread.join()
    for step in range(2, 30):  # more than its queue holds
        writer.write(step, {"loss": 1.0}, "train")
    writer.write_image(30, "preview", np.zeros((4, 4, 3), np.uint8))
    writer.close()
    assert len(read_records(tmp_path)) == 29
    assert capsys.readouterr().err.count("TensorBoard's events") == 1


def test_finished_files_in_a_bucket_are_not_rewritten(bucket, monkeypatch):  # noqa: F811
    monkeypatch.setattr(metrics, "CHUNK", 3)
    write(bucket / "run", 0, range(1, 9))
    sizes = [len(p.read_text().splitlines()) for p in sorted((bucket / "run").glob("metrics-*.jsonl"))]
    assert sizes == [3, 3, 2]


def test_a_slow_bucket_does_not_hold_up_training(bucket, monkeypatch):  # noqa: F811
    writer, threads, write_text = MetricWriter(bucket / "run"), set(), type(bucket).write_text
    monkeypatch.setattr(
        type(bucket), "write_text", lambda path, text: threads.add(threading.current_thread()) or write_text(path, text)
    )
    for step in range(1, 5):
        writer.write(step, {"loss": 1.0}, "train")
    writer.close()
    assert [r["step"] for r in read_records(bucket / "run")] == [1, 2, 3, 4]
    assert threads and threading.current_thread() not in threads
