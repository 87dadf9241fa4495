"""Eight virtual CPU devices and strict JAX settings for every test."""

import gc
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's pool has one thread per core, and a collective occupies one until every device has joined. With fewer threads than
# concurrent collectives, those on a mesh of several axes deadlock.
os.environ.setdefault("NPROC", "64")
# Most of a test's time is compilation, so there is little optimisation, and every program is compiled only once. These are
# environment variables so that processes started by tests inherit them.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.path.dirname(__file__), "../.pytest_cache/jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import hypothesis
import jax
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
gc.set_threshold(100_000, 50, 100)  # with as many objects as JAX traces, collections take a tenth of the suite's time
# Hypothesis draws the same examples every time; HYPOTHESIS_PROFILE=default draws others.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
if not flags.FLAGS.is_parsed():  # grain's workers read absl flags
    flags.FLAGS.mark_as_parsed()

REFERENCE = os.path.join(os.path.dirname(__file__), "../../shared/reference")
CIFAR10 = os.path.join(os.path.dirname(__file__), "../../shared/data/cifar10_train.zip")


@pytest.fixture(scope="session")
def reference():
    """The folder of numbers from the official implementation; skips if it is missing."""
    if not os.path.isdir(REFERENCE):
        pytest.skip("no ../shared/reference beside this checkout: numbers of the official implementation not compared")
    return REFERENCE


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A work directory with both stages of the tiny config, trained for a few steps. Tests must not change it."""
    from binlatent.experiment import Experiment
    from tests import tiny

    folder = tmp_path_factory.mktemp("trained")
    Experiment.open(folder / "run", tiny.config(tiny.npz(folder))).run()
    return folder / "run"


@pytest.fixture(scope="session")
def captioned(tmp_path_factory):
    """The same, trained on images with two captions each."""
    import numpy as np

    from binlatent.experiment import Experiment
    from tests import tiny

    folder, colours = tmp_path_factory.mktemp("captioned"), ("red", "green", "blue")
    captions = np.array([[f"a {colours[i % 3]} square", f"square, {colours[i % 3]}"] for i in range(48)])
    np.savez(folder / "images.npz", images=tiny.images(48), captions=captions)
    config = tiny.config(
        str(folder / "images.npz"), data__captions="captions", prior__text_depth=1, text__prompts=("a red square",)
    )
    Experiment.open(folder / "run", config).run()
    return folder / "run"
