import re

import jax
import jax.numpy as jnp
import pytest

from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.train import loop, memory
from tests import tiny


def test_what_a_program_needs_is_what_it_is_given_and_gives():
    spec = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    product = jax.jit(lambda a, b: a @ b).lower(spec, spec).compile()
    assert 3 * 4_000_000 <= memory.planned_bytes(product) < 5 * 4_000_000
    donated = jax.jit(lambda a: a + 1, donate_argnums=0).lower(spec).compile()
    assert 4_000_000 <= memory.planned_bytes(donated) < 2 * 4_000_000


def test_virtual_devices_share_the_machine_s_memory(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text(f"{8 * 2**20}\n")
    monkeypatch.setattr(memory, "LIMITS", (str(limit), str(tmp_path / "absent")))
    assert memory.device_bytes() == 2**20
    limit.write_text("max\n")
    assert memory.device_bytes() > 2**24


def test_a_stage_that_does_not_fit_is_refused_before_it_has_a_state(tmp_path, monkeypatch):
    config, given = tiny.config(tiny.npz(tmp_path)), []

    def train(*args, metadata, **kwargs):
        given.append((metadata, dict(metadata)))
        return loop.train(*args, metadata=metadata, **kwargs)

    monkeypatch.setattr("binlatent.experiment.train", train)
    monkeypatch.setattr(memory, "device_bytes", lambda: 2**20)
    with pytest.raises(UserError, match=r"autoencoder: a training step needs \d+\.\d GiB on each device") as refused:
        Experiment.open(tmp_path / "run", config).train("autoencoder")
    assert re.search(r"autoencoder_training\.(batch_size|micro_batches)", str(refused.value))
    assert not list((tmp_path / "run/autoencoder/checkpoints").iterdir())
    assert given[0][0] == given[0][1]  # what the caller gave is as it was
