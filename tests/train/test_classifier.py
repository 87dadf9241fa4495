"""The classifier stage learns the digits and depends on its labels."""

import jax
import jax.numpy as jnp
import numpy as np

from binlatent.nets.classifier import FeatureClassifier
from binlatent.train.classifier import ClassifierStage
from binlatent.train.optimizer import Optimizer


def test_learns_bars():
    net = FeatureClassifier(num_classes=2, width=8, num_features=16)
    stage = ClassifierStage(net=net, optimizer=Optimizer(learning_rate=3e-3, ema_decay=0.5), num_steps=30)
    label = np.arange(32) % 2
    image = np.random.default_rng(0).integers(0, 60, (32, 8, 8, 1), dtype=np.uint8)
    image[label == 0, 3:5] = 255
    image[label == 1, :, 3:5] = 255
    batch = {"image": jnp.asarray(image), "label": jnp.asarray(label), "mask": jnp.ones(32, bool)}
    state = jax.jit(stage.init)(jax.random.key(0), batch)
    step = jax.jit(stage.train_step)
    for _ in range(30):
        state, values = step(state, batch, jax.random.key(1))
    assert values["finite"] and values["loss"] < 0.3
    out = stage.eval_step(state, batch | {"mask": jnp.arange(32) < 31}, jax.random.key(1))
    assert out["accuracy"].compute() == 1
    assert out["accuracy"].count == 31
