import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets.patchgan import PatchGAN
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.discriminator import DiscriminatorTraining
from binlatent.train.optimizer import Optimizer

REAL = jnp.asarray([[2.0, 0.5], [-1.0, 0.0]]).reshape(2, 2, 1, 1)
MADE = jnp.asarray([[-3.0, 0.5], [0.0, -0.5]]).reshape(2, 2, 1, 1)


def test_hinge_by_hand():
    game = Adversarial(kind="hinge")
    np.testing.assert_allclose(game.discriminator_loss(REAL, MADE), [(0.25 + 0.75) / 2, (1.5 + 0.75) / 2])
    np.testing.assert_allclose(game.generator_loss(MADE), [1.25, 0.25])


def test_non_saturating_by_hand():
    game, p = Adversarial(kind="non_saturating"), lambda x: 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    both = -(np.log(p(REAL)).mean((1, 2, 3)) + np.log(1 - p(MADE)).mean((1, 2, 3))) / 2
    np.testing.assert_allclose(game.discriminator_loss(REAL, MADE), both, rtol=1e-5)
    np.testing.assert_allclose(game.generator_loss(MADE), -np.log(p(MADE)).mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("kind", "chance"), [("hinge", 1.0), ("non_saturating", np.log(2))])
def test_loss_at_chance(kind, chance):
    np.testing.assert_allclose(Adversarial(kind=kind).discriminator_loss(0 * REAL, 0 * MADE), chance, rtol=1e-6)


def test_lecam_by_hand():
    averages = {"real": jnp.float32(0.25), "fake": jnp.float32(-0.5)}
    real = np.square(np.maximum(np.asarray(REAL) + 0.5, 0)).mean((1, 2, 3))
    made = np.square(np.maximum(0.25 - np.asarray(MADE), 0)).mean((1, 2, 3))
    np.testing.assert_allclose(Adversarial().lecam(REAL, MADE, averages), real + made, rtol=1e-6)


def test_lecam_averages_follow_the_logits():
    discriminator = DiscriminatorTraining(
        net=PatchGAN(), adversarial=Adversarial(lecam_decay=0.9), augmentation=Augmentation(),
        optimizer=Optimizer(learning_rate=1e-3),
    )  # fmt: skip
    extra = {"statistics": {}, "averages": {"real": jnp.float32(1), "fake": jnp.float32(0)}}
    moved = discriminator.next_extra(extra, {}, {"logits_real": jnp.float32(2), "logits_fake": jnp.float32(-1)})
    np.testing.assert_allclose([moved["averages"]["real"], moved["averages"]["fake"]], [1.1, -0.1], rtol=1e-5)


@pytest.mark.parametrize(
    "bad", [{"kind": "wasserstein"}, {"max_adaptive_weight": 0}, {"lecam_weight": -1}, {"lecam_decay": 1}]
)
def test_invalid_options_are_refused(bad):
    with pytest.raises(Exception, match=next(iter(bad.values())) if "kind" in bad else next(iter(bad))):
        Adversarial(**bad)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, None),
        ({"discriminator": 6.0}, "diverges"),
        ({"discriminator": float("nan")}, "diverges"),
        ({"logits_fake": -25.0}, "diverges"),
        ({"discriminator_accuracy": 0.999}, "classifies 99.9 % of patches correctly"),
    ],
)
def test_warnings(values, says):
    discriminator = DiscriminatorTraining(
        net=PatchGAN(), adversarial=Adversarial(), augmentation=Augmentation(), optimizer=Optimizer(learning_rate=1e-3)
    )
    healthy = {"discriminator": 0.9, "logits_real": 0.4, "logits_fake": -0.4, "discriminator_accuracy": 0.7}
    said = discriminator.warnings(healthy | values)
    assert (said == []) if says is None else (len(said) == 1 and says in said[0])
