"""The discriminator in stage 1: its gradient for the autoencoder, and its own training."""

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
    """The result of one pass of the discriminator over real and reconstructed images, as means over the batch.

    Attributes:
      loss: the adversarial term of the autoencoder's loss, unweighted.
      image_gradient: its gradient with respect to the reconstructions.
      gradient: of the discriminator's own loss with respect to its parameters.
      statistics: the discriminator's `batch_stats` after the pass.
      values: metrics, by name.
    """

    loss: PyTree  # a scalar; untyped, like all fields, because under `jax.eval_shape` they are shapes
    image_gradient: PyTree
    gradient: PyTree
    statistics: PyTree
    values: PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorTraining:
    """A discriminator and its training.

    Attributes:
      net: (images, train=…) → patch logits; any running statistics are in the collection `batch_stats`.
      adversarial: the two losses.
      augmentation: of the discriminator's input.
      optimizer: the discriminator's.
    """

    net: nn.Module
    adversarial: Adversarial
    augmentation: Augmentation
    optimizer: Optimizer

    def init(self, key: PRNGKey, images: Images) -> tuple[PyTree, PyTree]:
        """Parameters, and the rest of its state: `statistics`, and `averages` of logits for LeCam."""
        variables = dict(self.net.init(key, images))
        params = variables.pop("params")
        averages = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
        return params, {"statistics": variables.get("batch_stats", {}), "averages": averages}

    def _forward(self, params: PyTree, statistics: PyTree, images: Images) -> tuple[Array, PyTree]:
        logits, updated = self.net.apply(
            {"params": params, "batch_stats": statistics}, images, train=True, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats", {})

    def forward(
        self, params: PyTree, extra: PyTree, images: Images, reconstructions: Images, keys: Key[Array, "b"]
    ) -> DiscriminatorOutput:
        """One pass over a batch. The reconstructions are discriminated once for the losses of both networks.

        Args:
          extra: as returned by `init`.
          keys: (b,), one key per example, for the augmentation.
        """

        def real_forward(params):
            return self._forward(params, extra["statistics"], self.augmentation(prng.fold(keys, 1), images))

        def fake_forward(params, reconstructions):
            return self._forward(params, after_real, self.augmentation(prng.fold(keys, 2), reconstructions))

        def own_loss(real_logits, fake_logits):
            loss = self.adversarial.discriminator_loss(real_logits, fake_logits).mean()
            lecam = self.adversarial.lecam(real_logits, fake_logits, extra["averages"]).mean()
            return loss + self.adversarial.lecam_weight * lecam, {"discriminator": loss, "lecam": lecam}

        real_logits, pull_real, after_real = jax.vjp(real_forward, params, has_aux=True)
        fake_logits, pull_fake, statistics = jax.vjp(fake_forward, params, reconstructions, has_aux=True)
        own = jax.value_and_grad(own_loss, argnums=(0, 1), has_aux=True)
        (_, values), (real_cotangent, fake_cotangent) = own(real_logits, fake_logits)
        # only one of the two results of each pullback is used; the compiler removes the other
        gradient = jax.tree.map(jnp.add, pull_real(real_cotangent)[0], pull_fake(fake_cotangent)[0])
        loss, cotangent = jax.value_and_grad(lambda x: self.adversarial.generator_loss(x).mean())(fake_logits)
        values |= {"logits_real": real_logits.mean(), "logits_fake": fake_logits.mean()}
        if not self.adversarial.lecam_weight:
            del values["lecam"]
        return DiscriminatorOutput(
            loss=loss, image_gradient=pull_fake(cotangent)[1], gradient=gradient, statistics=statistics, values=values
        )

    def next_extra(self, extra: PyTree, statistics: PyTree, values: dict[str, Array]) -> PyTree:
        """`extra` after a step, from the `statistics` and `values` of its pass, averaged over micro-batches."""
        decay = self.adversarial.lecam_decay
        averages = {
            side: decay * average + (1 - decay) * values[f"logits_{side}"]
            for side, average in extra["averages"].items()
        }
        return {"statistics": statistics, "averages": averages}

    def evaluate(
        self, params: PyTree, extra: PyTree, images: Images, reconstructions: Images
    ) -> dict[str, Float[Array, "b"]]:
        """Both losses, mean logits, and the share of patches classified correctly, per example, without augmentation."""
        variables = {"params": params, "batch_stats": extra["statistics"]}
        real, fake = self.net.apply(variables, images), self.net.apply(variables, reconstructions)
        correct = (real > 0).mean((1, 2, 3)) + (fake < 0).mean((1, 2, 3))
        return {
            "adversarial": self.adversarial.generator_loss(fake),
            "discriminator": self.adversarial.discriminator_loss(real, fake),
            "discriminator_accuracy": correct / 2,
            "logits_real": real.mean((1, 2, 3)),
            "logits_fake": fake.mean((1, 2, 3)),
        }

    def warnings(self, values: dict[str, float]) -> list[str]:
        """Warnings about divergence, and about a discriminator that is too strong."""
        chance = {"hinge": 1.0, "non_saturating": 0.693}[self.adversarial.kind]
        loss, size = values["discriminator"], max(abs(values["logits_real"]), abs(values["logits_fake"]))
        # `not (… and …)` also catches NaN; logits of 20 are far beyond hinge's margin of 1, and a likelihood of 2e-9
        if not (loss < 5 * chance and size < 20):
            return [
                f"the discriminator diverges: its loss is {loss:.3g} (at chance {chance:.3g}), its mean logits "
                f"{values['logits_real']:.3g} (real) and {values['logits_fake']:.3g} (fake); lower its learning rate, "
                "raise lecam_weight, or start it later"
            ]
        if values["discriminator_accuracy"] > 0.99:
            return [
                f"the discriminator classifies {100 * values['discriminator_accuracy']:.1f} % of patches correctly, so the "
                "autoencoder learns little more from it; lower its learning rate, or turn on augmentation"
            ]
        return []
