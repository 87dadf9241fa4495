"""Adversarial losses of the autoencoder and the discriminator, the adaptive weight, and LeCam regularisation."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from binlatent.typing import Array, Float

PatchLogits = Float[Array, "b y x 1"]
PerExample = Float[Array, "b"]
Scalar = Float[Array, ""]

KINDS = ("hinge", "non_saturating")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial:
    """The adversarial losses. The term's weight and start step are set with the other loss terms.

    Attributes:
      kind: `hinge`, or `non_saturating` (log-likelihood).
      adaptive: multiply the term by ‖∇ reconstruction‖ / ‖∇ adversarial‖ at the decoder's last kernel.
      max_adaptive_weight: that factor is clipped to [0, max_adaptive_weight].
      lecam_weight: of the LeCam term in the discriminator's loss; 0 for none.
      lecam_decay: of the LeCam term's moving averages of logits.

    Raises:
      ValueError: an unknown kind, or a number out of range.
    """

    kind: Literal["hinge", "non_saturating"] = "hinge"
    adaptive: bool = True
    max_adaptive_weight: float | int = 1.0
    lecam_weight: float | int = 0.0
    lecam_decay: float | int = 0.999

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"no adversarial loss {self.kind!r}; there are {', '.join(KINDS)}")
        if self.max_adaptive_weight <= 0 or self.lecam_weight < 0 or not 0 <= self.lecam_decay < 1:
            raise ValueError(
                f"max_adaptive_weight {self.max_adaptive_weight} must be positive, lecam_weight {self.lecam_weight} at least "
                f"0, lecam_decay {self.lecam_decay} in [0, 1)"
            )

    def generator_loss(self, fake: PatchLogits) -> PerExample:
        """The autoencoder's loss, averaged over patches: −logit (hinge), or softplus(−logit)."""
        fake = fake.astype(jnp.float32)
        return (-fake if self.kind == "hinge" else jax.nn.softplus(-fake)).mean((1, 2, 3))

    def discriminator_loss(self, real: PatchLogits, fake: PatchLogits) -> PerExample:
        """The discriminator's loss: the mean of its losses on real and fake patches. At chance (logits 0) it is 1 for
        hinge and log 2 for non-saturating."""
        real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
        if self.kind == "hinge":
            total = jax.nn.relu(1 - real).mean((1, 2, 3)) + jax.nn.relu(1 + fake).mean((1, 2, 3))
        else:
            total = jax.nn.softplus(-real).mean((1, 2, 3)) + jax.nn.softplus(fake).mean((1, 2, 3))
        return total / 2

    def lecam(self, real: PatchLogits, fake: PatchLogits, averages: dict[str, Scalar]) -> PerExample:
        """LeCam regularisation (Tseng et al. 2021): the squared distance by which real logits exceed the average fake
        one, plus that by which fake logits fall below the average real one. It restrains a strong discriminator.

        Args:
          averages: moving averages of the mean logit, `real` and `fake`.
        """
        above = jnp.square(jax.nn.relu(real.astype(jnp.float32) - averages["fake"])).mean((1, 2, 3))
        below = jnp.square(jax.nn.relu(averages["real"] - fake.astype(jnp.float32))).mean((1, 2, 3))
        return above + below

    def adaptive_weight(self, reconstruction: Array, adversarial: Array) -> Scalar:
        """‖reconstruction‖ / (‖adversarial‖ + 1e-4), clipped to [0, max_adaptive_weight], for the two losses' gradients
        at the decoder's last kernel (Esser et al. 2021). No gradient flows through it."""
        ratio = jnp.linalg.norm(reconstruction.ravel()) / (jnp.linalg.norm(adversarial.ravel()) + 1e-4)
        return jax.lax.stop_gradient(jnp.clip(ratio, 0, self.max_adaptive_weight))
