import jax
import pytest

from binlatent.errors import UserError
from binlatent.machines import bench, plan
from binlatent.machines.bench import Row
from tests import tiny


@pytest.mark.slow
def test_every_row_is_measured():
    config = tiny.config(prior__depth=1, plan__num_classes=3)
    rows = bench.bench(config, batch_size=jax.device_count(), seconds=0.05)
    assert [row.what for row in rows] == [
        "prior: training step",
        "autoencoder: training step",
        "sampling and decoding: 16 steps",
        "sampling and decoding: 64 steps",
    ]
    assert all(row.seconds > 0 and row.flops > 0 and row.bytes > 0 for row in rows)
    # four times the steps, and the same decoding, which is dear beside so small a prior
    assert 2 < rows[3].flops / rows[2].flops < 4
    lines = bench.table(rows).splitlines()
    assert lines[0].startswith(f"{jax.device_count()} × cpu (peak unknown, so no MFU)") and len(lines) == 4 + len(rows)


def test_the_table_counts_per_device(monkeypatch):
    monkeypatch.setattr(bench, "peak_flops", lambda kind: 1e12)
    row = Row(what="step", batch_size=32, seconds=0.5, flops=2 * 10**12 * jax.device_count(), bytes=3 * 2**29)
    assert "| step | 32 | 500 | 64 | 4 | 400.0 % | 1.50 GiB |" in bench.table([row])


def test_the_largest_batch_that_fits_is_used(monkeypatch):
    """Programs of 1 GiB and 1 GiB per example, on a device of 10 GiB of which nine tenths may be used."""

    class Device:
        device_kind = "toy"

        def memory_stats(self):
            return {"bytes_limit": 10 * 2**30}

    monkeypatch.setattr(bench.jax, "local_devices", lambda: [Device()])
    monkeypatch.setattr(bench, "planned_bytes", lambda program: program)
    mesh = plan.mesh_lib.MeshShape().build(jax.devices()[:2])
    prepare = lambda size: (size, 2**30 * (1 + size))  # noqa: E731
    assert bench._fitting(prepare, mesh, 0) == (8, (8, 9 * 2**30))
    assert bench._fitting(prepare, mesh, 16)[0] == 16  # asked for, so taken


def test_impossible_measurements_are_errors():
    with pytest.raises(UserError, match=r"--batch_size: batch size 12 is not divisible"):
        bench.bench(tiny.config(), batch_size=12)
    with pytest.raises(UserError, match="does not report its memory: give a --batch_size"):
        bench.bench(tiny.config())
