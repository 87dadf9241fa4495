"""Tiny networks, fake images and a tiny config, shared by all tests."""

import shutil

import numpy as np

from binlatent import config as config_lib
from binlatent.experiment import Experiment
from binlatent.nets.condition import Condition


def images(num: int = 24, resolution: int = 8, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth random images, uint8."""
    rng = np.random.default_rng(seed)
    low = rng.random((num, 2, 2, channels))
    return (low.repeat(resolution // 2, 1).repeat(resolution // 2, 2) * 255).astype(np.uint8)


def config(path: str = "", **overrides):
    """A config of both stages that trains in seconds; `a__b=1` overrides a.b."""
    c = config_lib.defaults()
    c.data.resolution, c.data.channels = 8, 1
    if path:
        c.data.source, c.data.path = "npz", path
    c.autoencoder.patch_size, c.autoencoder.channels, c.autoencoder.channel_multipliers = 2, 32, (1,)
    c.autoencoder.res_blocks, c.autoencoder.attention_resolutions = 1, ()
    c.autoencoder.code_bits, c.autoencoder.embedding_width = 4, 32
    c.prior.width, c.prior.depth, c.prior.heads = 16, 2, 2
    c.prior.components, c.prior.code_components = 2, 2  # a mixture on both levels, as in the quickstart
    for stage in ("autoencoder", "prior"):
        c[f"{stage}_optimizer"].learning_rate = 1e-2
        c[f"{stage}_training"].update(
            num_steps=6, batch_size=8, log_every=2, evaluate_every=3, checkpoint_every=2, evaluate_batches=1
        )
    c.student_training.update(num_steps=6, evaluate_every=3, checkpoint_every=2)
    return config_lib.override(c, [f"{k.replace('__', '.')}={v}" for k, v in overrides.items()])


def condition(array) -> Condition | None:
    """A recorded condition: labels (b,), vectors (b, d) or text tokens (b, n, d)."""
    return None if array is None else Condition(**{("label", "vector", "tokens")[array.ndim - 1]: array})


def npz(folder, num: int = 48, classes: int = 3) -> str:
    """An npz data set of fake images with labels."""
    path = str(folder / "images.npz")
    np.savez(path, images=images(num), labels=np.arange(num) % classes)
    return path


def copy_of(workdir, folder, *overrides):
    """A copy of a work directory, opened with other keys."""
    shutil.copytree(workdir, folder)
    return Experiment.open(folder, config_lib.override(config_lib.read(folder / "config.json"), list(overrides)))
