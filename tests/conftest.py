"""Eight virtual CPU devices and JAX at its strictest, for every test."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's pool has a thread a core, and a collective holds one until every device has joined: with fewer threads than
# collectives under way, those on a mesh of several axes wait for each other for ever.
os.environ.setdefault("NPROC", "64")
# Most of a test's time is compilation: little optimisation, and every program compiled once, by whichever process is
# first. Through the environment, so that the processes that tests start do the same.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.path.dirname(__file__), "../.pytest_cache/jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
if not flags.FLAGS.is_parsed():  # grain's workers read absl flags
    flags.FLAGS.mark_as_parsed()

REFERENCE = os.path.join(os.path.dirname(__file__), "../../shared/reference")
CIFAR10 = os.path.join(os.path.dirname(__file__), "../../shared/data/cifar10_train.zip")


@pytest.fixture(scope="session")
def reference():
    """The folder of numbers from the released implementation; skips where it is missing."""
    if not os.path.isdir(REFERENCE):
        pytest.skip("no ../shared/reference beside this checkout: numbers of the released implementation not compared")
    return REFERENCE


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A work directory with both stages of the tiny config, trained for a few steps. Not to be changed by a test."""
    from binlatent.experiment import Experiment
    from tests import tiny

    folder = tmp_path_factory.mktemp("trained")
    Experiment.open(folder / "run", tiny.config(tiny.npz(folder))).run()
    return folder / "run"
