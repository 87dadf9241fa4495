"""Stage 1: the binary autoencoder."""

import dataclasses

import jax.numpy as jnp

from binlatent import prng
from binlatent.bits import BitStatistics
from binlatent.nets import binarize
from binlatent.nets.autoencoder import BinaryAutoencoder
from binlatent.train import metrics, regularizers
from binlatent.train.optimizer import Optimizer, all_finite, value_and_grad
from binlatent.train.state import TrainState
from binlatent.train.terms import Term, weighted_sum
from binlatent.typing import Array, PRNGKey, PyTree


def to_float(images: Array) -> Array:
    """uint8 images as float32 in [0, 1]; float images are left as they are."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def psnr(images: Array, reconstruction: Array) -> Array:
    """Peak signal-to-noise ratio of each image, in dB, of images in [0, 1] (the reconstruction is clipped)."""
    error = jnp.square(images - jnp.clip(reconstruction, 0, 1)).mean(tuple(range(1, images.ndim)))
    return -10 * jnp.log10(jnp.maximum(error, 1e-10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderStage:
    """Trains a binary autoencoder on images.

    A batch holds `image` uint8 (b, h, w, c); validation batches a `mask` (b,) too.

    Attributes:
      net: the autoencoder.
      terms: of the loss, by the names of `loss_values`; a term without weight is not computed.
      optimizer, num_steps, micro_batches: see `Optimizer` and `Training`.
    """

    net: BinaryAutoencoder
    terms: tuple[Term, ...]
    optimizer: Optimizer
    num_steps: int
    micro_batches: int = 1

    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state."""
        images = jnp.zeros((1, self.net.resolution, self.net.resolution, self.net.image_channels))
        params = {"autoencoder": self.net.init(key, images)["params"]}
        return TrainState.create(params, self.optimizer.build(self.num_steps).init(params))

    def loss_values(self, images: Array, reconstruction: Array, logits: Array, drawn: Array) -> dict[str, Array]:
        """The enabled terms of every example, unweighted.

        `l1` and `l2` are means over pixels and channels; the regularisers of the code are in `train.regularizers`.
        """
        axes = tuple(range(1, images.ndim))
        code = drawn > 0.5
        values = {
            "l1": lambda: jnp.abs(images - reconstruction).mean(axes),
            "l2": lambda: jnp.square(images - reconstruction).mean(axes),
            "sample_entropy": lambda: regularizers.sample_entropy(logits),
            "unused_entropy": lambda: regularizers.unused_entropy(logits),
            "commitment": lambda: regularizers.commitment(logits, code),
            "released": lambda: regularizers.released(logits, use_tanh=self.net.signed),
        }
        return {term.name: values[term.name]() for term in self.terms if term.enabled}

    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One optimizer step; metrics are scalars."""

        def loss(params, batch, keys):
            images = to_float(batch["image"])
            noise = prng.uniform(keys, self.net.code_shape)
            reconstruction, logits, drawn = self.net.apply({"params": params["autoencoder"]}, images, noise)
            values = self.loss_values(images, reconstruction, logits, drawn)
            means = {name: value.mean() for name, value in values.items()}
            return weighted_sum(self.terms, values, state.step), means

        keys = prng.per_example(key, batch["image"].shape[0])
        total, values, grads = value_and_grad(loss, state.params, batch, keys, micro_batches=self.micro_batches)
        finite = all_finite(total, grads)
        params, opt_state = self.optimizer.update(grads, state.opt_state, state.params, self.num_steps)
        following = state.advance(params=params, opt_state=opt_state, finite=finite, ema_decay=self.optimizer.ema_decay)
        return following, {"loss": total, **values, "finite": finite, "skipped": following.skipped}

    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict:
        """Loss terms, PSNR and bit statistics of the averaged parameters, with thresholded codes."""
        images, mask = to_float(batch["image"]), batch["mask"]
        reconstruction, logits, drawn = self.net.apply({"params": state.ema["autoencoder"]}, images)
        values = self.loss_values(images, reconstruction, logits, drawn)
        per_example = {name: jnp.broadcast_to(value, mask.shape) for name, value in values.items()}
        per_example |= {
            "psnr": psnr(images, reconstruction),
            "bit_uncertainty": regularizers.sample_entropy(logits),
        }
        return {name: metrics.mean(value, mask) for name, value in per_example.items()} | {
            "code": BitStatistics.from_code(binarize.to_code(logits), mask)
        }

    @staticmethod
    def warnings(values: dict) -> list[str]:
        """What a person should know about an evaluation of the code."""
        said = []
        if values["dead_bits"]:
            k = len(values["bit_mean"])
            said.append(f"{values['dead_bits']:.0f} of {k} bits are dead (always 0 or always 1 over the validation set)")
        if values["bit_correlation"] > 0.5:
            said.append(f"bits repeat each other: their mean absolute correlation is {values['bit_correlation']:.2f}")
        return said
