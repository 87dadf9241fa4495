import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.checkpoint import Checkpoints, checkpoint_steps, fingerprint, load_ema
from binlatent.errors import UserError
from tests.processes import ROOT


def state(value: float):
    return {"ema": {"w": jnp.full((64, 64), value), "b": jnp.arange(8.0)}, "step": jnp.int32(value)}


def write(folder, *steps):
    checkpoints = Checkpoints(folder, keep=5)
    for step in steps:
        checkpoints.save(step, state(step), {"seed": 0})
    checkpoints.wait()
    checkpoints.close()


def restore(folder):
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), jax.tree.map(jnp.asarray, state(0))
    )
    checkpoints = Checkpoints(folder, keep=5)
    found = checkpoints.restore(abstract)
    checkpoints.close()
    return found


def damage(folder, how):
    """Truncates, or flips a bit of, the largest file of a checkpoint: the one with the arrays."""
    file = max((p for p in (folder / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(file.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_round_trip(tmp_path):
    write(tmp_path, 1, 2)
    found, metadata = restore(tmp_path)
    np.testing.assert_array_equal(found["ema"]["w"], state(2)["ema"]["w"])
    assert metadata["seed"] == 0
    step, ema, _ = load_ema(tmp_path)
    assert step == 2
    np.testing.assert_array_equal(ema["w"], np.full((64, 64), 2.0))


@pytest.mark.parametrize("how", ["truncated", "a flipped bit", "no state"])
def test_a_broken_checkpoint_is_reported_and_the_previous_one_used(tmp_path, capsys, how):
    write(tmp_path, 1, 2)
    if how == "no state":
        shutil.rmtree(tmp_path / "2" / "state")
    else:
        damage(tmp_path / "2", how)
    assert load_ema(tmp_path)[0] == 1
    found, _ = restore(tmp_path)
    assert int(found["step"]) == 1
    assert "the checkpoint of step 2" in capsys.readouterr().err
    assert checkpoint_steps(tmp_path) == [1]
    assert (tmp_path / "2.broken").exists()
    write(tmp_path, 2)  # its step can be saved again
    assert int(restore(tmp_path)[0]["step"]) == 2
    damage(tmp_path / "2", "truncated")  # and break again
    assert int(restore(tmp_path)[0]["step"]) == 1
    assert (tmp_path / "2.broken1").exists()


def test_an_uncommitted_checkpoint_of_a_bucket_does_not_count(tmp_path, monkeypatch):
    """As on object stores: the folder has its name before the save is finished, and Orbax's commit file ends it."""
    from orbax.checkpoint._src.path import gcs_utils

    monkeypatch.setattr(gcs_utils, "is_gcs_path", lambda path: True)
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    write(tmp_path, 1, 2)
    assert checkpoint_steps(tmp_path) == [1, 2]
    (tmp_path / "2" / "commit_success.txt").unlink()  # as if killed before
    assert checkpoint_steps(tmp_path) == [1]
    assert load_ema(tmp_path)[0] == 1
    assert int(restore(tmp_path)[0]["step"]) == 1


def test_an_unfinished_checkpoint_of_a_disk_does_not_count(tmp_path):
    write(tmp_path, 1, 2)
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp-1700000000000")
    assert checkpoint_steps(tmp_path) == [1]
    assert load_ema(tmp_path)[0] == 1


def test_nothing_restores(tmp_path):
    write(tmp_path, 1)
    damage(tmp_path / "1", "truncated")
    with pytest.raises(UserError, match=r"no checkpoint in .* restores"):
        restore(tmp_path)
    assert checkpoint_steps(tmp_path) == [1]  # and nothing is thrown away


def test_no_checkpoint(tmp_path):
    assert restore(tmp_path) is None
    with pytest.raises(UserError, match="train this stage first"):
        load_ema(tmp_path)


def test_fingerprint_follows_names_and_values():
    a = {"x": jnp.ones(3), "y": jnp.zeros(2)}
    assert fingerprint(a) == fingerprint({"y": jnp.zeros(2), "x": jnp.ones(3)})
    assert fingerprint(a) != fingerprint({"x": jnp.ones(3).at[1].set(1.0000001), "y": jnp.zeros(2)})
    assert fingerprint(a) != fingerprint({"x": jnp.ones(3), "z": jnp.zeros(2)})


FAILS = """
import sys
from binlatent.checkpoint import Checkpoints
from binlatent.errors import CheckpointError
from tests.test_checkpoint import state, write
from pathlib import Path

folder = Path(sys.argv[1])
write(folder, 1)
checkpoints = Checkpoints(folder, keep=5)
folder.rename(folder.parent / "away")
folder.write_text("in the way")
try:
    checkpoints.save(2, state(2), {})
    checkpoints.wait()
except CheckpointError as error:
    print(error)
checkpoints.close()
"""


def test_a_process_ends_after_a_save_that_failed(tmp_path):
    """Orbax's threads would wait for ten minutes for a folder that could not be made."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", FAILS, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "a checkpoint could not be written" in done.stdout and "Free space or correct the path" in done.stdout
