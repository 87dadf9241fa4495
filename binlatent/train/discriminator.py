"""The discriminator's side of stage 1: what it tells the autoencoder, and how it learns."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from binlatent import prng
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.optimizer import Optimizer
from binlatent.typing import Array, Float, Images, Key, PRNGKey, PyTree


@flax.struct.dataclass
class DiscriminatorOutput:
    """What one forward pass of the discriminator over real and reconstructed images gives, as means over the batch.

    Attributes:
      loss: the adversarial term of the autoencoder's loss, unweighted.
      image_gradient: its gradient with respect to the made images.
      gradient: of the discriminator's own loss with respect to its parameters.
      statistics: its `batch_stats` after the pass.
      values: metrics, by name.
    """

    loss: PyTree  # a scalar; untyped, like all fields, since an abstract comparison holds shapes
    image_gradient: PyTree
    gradient: PyTree
    statistics: PyTree
    values: PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorTraining:
    """A discriminator and how it is trained.

    Attributes:
      net: (images, train=…) → patch logits; its running statistics, where it has some, are the collection
        `batch_stats`.
      adversarial: the two losses.
      augmentation: of what the discriminator sees.
      optimizer: its own.
    """

    net: nn.Module
    adversarial: Adversarial
    augmentation: Augmentation
    optimizer: Optimizer

    def init(self, key: PRNGKey, images: Images) -> tuple[PyTree, PyTree]:
        """Parameters, and what else is carried from step to step: `statistics` and the averages that LeCam compares
        with."""
        variables = dict(self.net.init(key, images))
        params = variables.pop("params")
        averages = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
        return params, {"statistics": variables.get("batch_stats", {}), "averages": averages}

    def _forward(self, params: PyTree, statistics: PyTree, images: Images) -> tuple[Array, PyTree]:
        logits, moved = self.net.apply(
            {"params": params, "batch_stats": statistics}, images, train=True, mutable=["batch_stats"]
        )
        return logits, moved.get("batch_stats", {})

    def forward(
        self, params: PyTree, extra: PyTree, images: Images, made: Images, keys: Key[Array, "b"]
    ) -> DiscriminatorOutput:
        """One forward pass over a batch. The reconstructions go through it once, for both players' losses.

        Args:
          extra: as `init` gives it.
          keys: (b,), one key per example, for the augmentation.
        """

        def real_forward(params):
            return self._forward(params, extra["statistics"], self.augmentation(prng.fold(keys, 1), images))

        def fake_forward(params, made):
            return self._forward(params, after_real, self.augmentation(prng.fold(keys, 2), made))

        def own_loss(real_logits, fake_logits):
            loss = self.adversarial.discriminator_loss(real_logits, fake_logits).mean()
            lecam = self.adversarial.lecam(real_logits, fake_logits, extra["averages"]).mean()
            return loss + self.adversarial.lecam_weight * lecam, {"discriminator": loss, "lecam": lecam}

        real_logits, pull_real, after_real = jax.vjp(real_forward, params, has_aux=True)
        fake_logits, pull_fake, statistics = jax.vjp(fake_forward, params, made, has_aux=True)
        own = jax.value_and_grad(own_loss, argnums=(0, 1), has_aux=True)
        (_, values), (real_cotangent, fake_cotangent) = own(real_logits, fake_logits)
        # Each pull-back is used for one of its two results: the compiler leaves the other one out.
        gradient = jax.tree.map(jnp.add, pull_real(real_cotangent)[0], pull_fake(fake_cotangent)[0])
        loss, cotangent = jax.value_and_grad(lambda x: self.adversarial.generator_loss(x).mean())(fake_logits)
        values |= {"logits_real": real_logits.mean(), "logits_fake": fake_logits.mean()}
        if not self.adversarial.lecam_weight:
            del values["lecam"]
        return DiscriminatorOutput(
            loss=loss, image_gradient=pull_fake(cotangent)[1], gradient=gradient, statistics=statistics, values=values
        )

    def follow(self, extra: PyTree, statistics: PyTree, values: dict[str, Array]) -> PyTree:
        """What is carried to the next step, after passes over the complete batch: their statistics and values, averaged."""
        decay = self.adversarial.lecam_decay
        averages = {
            side: decay * average + (1 - decay) * values[f"logits_{side}"]
            for side, average in extra["averages"].items()
        }
        return {"statistics": statistics, "averages": averages}

    def evaluate(self, params: PyTree, extra: PyTree, images: Images, made: Images) -> dict[str, Float[Array, "b"]]:
        """Both losses, the mean logits, and the share of patches judged rightly, of every example, without
        augmentation."""
        variables = {"params": params, "batch_stats": extra["statistics"]}
        real, made = self.net.apply(variables, images), self.net.apply(variables, made)
        right = (real > 0).mean((1, 2, 3)) + (made < 0).mean((1, 2, 3))
        return {
            "adversarial": self.adversarial.generator_loss(made),
            "discriminator": self.adversarial.discriminator_loss(real, made),
            "discriminator_accuracy": right / 2,
            "logits_real": real.mean((1, 2, 3)),
            "logits_fake": made.mean((1, 2, 3)),
        }

    def warnings(self, values: dict[str, float]) -> list[str]:
        """What a person should know about an evaluation."""
        chance = {"hinge": 1.0, "non_saturating": 0.693}[self.adversarial.kind]
        loss, size = values["discriminator"], max(abs(values["logits_real"]), abs(values["logits_fake"]))
        # Written so that a NaN warns: logits of 20 are far beyond the hinge's margin of 1 and a likelihood of 2e-9.
        if not (loss < 5 * chance and size < 20):
            return [
                f"the discriminator diverges: its loss is {loss:.3g} (at chance {chance:.3g}), its mean logits "
                f"{values['logits_real']:.3g} (real) and {values['logits_fake']:.3g} (fake); lower its learning rate, "
                "raise lecam_weight, or start it later"
            ]
        if values["discriminator_accuracy"] > 0.99:
            return [
                f"the discriminator tells {100 * values['discriminator_accuracy']:.1f} % of patches apart: the autoencoder "
                "learns little more from it; lower its learning rate, or turn on augmentation"
            ]
        return []
