"""Stage 1: the binary autoencoder, with or without a discriminator."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from binlatent import prng
from binlatent.bits import BitStatistics
from binlatent.images import psnr, to_float
from binlatent.nets import binarize
from binlatent.nets.autoencoder import BinaryAutoencoder
from binlatent.train import metrics, perceptual, regularizers
from binlatent.train.discriminator import DiscriminatorTraining
from binlatent.train.optimizer import Optimizer, accumulate, all_finite
from binlatent.train.stage import Stage
from binlatent.train.state import TrainState
from binlatent.train.terms import Term, weighted_sum
from binlatent.typing import Array, Images, Key, PRNGKey, PyTree

# Names of loss terms, by their inputs.
IMAGE_TERMS = ("l1", "l2", *perceptual.LOSSES)
CODE_TERMS = ("sample_entropy", "batch_entropy", "commitment", "official")
TERMS = (*IMAGE_TERMS, *CODE_TERMS, "adversarial")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AutoencoderStage(Stage):
    """Trains a binary autoencoder on images, and its discriminator in the same step.

    A batch holds `image` uint8 (b, h, w, c); validation batches a `mask` (b,) too.

    Attributes:
      net: the autoencoder.
      terms: of the loss, with names from `TERMS`; a term of weight 0 is not computed.
      optimizer, num_steps, micro_batches: see `Optimizer` and `Training`.
      discriminator: the discriminator; None without the term `adversarial`.
      frozen: weights of the perceptual networks, by the names of their terms; neither trained nor saved.

    Raises:
      ValueError: a term is unknown, or lacks its discriminator, weights or image size.
    """

    network: ClassVar[str] = "autoencoder"  # the name of what is trained, beside the discriminator

    net: BinaryAutoencoder
    terms: tuple[Term, ...]
    micro_batches: int = 1
    discriminator: DiscriminatorTraining | None = None

    def __post_init__(self):
        enabled = [term.name for term in self.terms if term.enabled]
        if unknown := sorted({term.name for term in self.terms} - set(TERMS)):
            raise ValueError(f"no loss terms {unknown}; there are {', '.join(TERMS)}")
        if missing := sorted((set(enabled) & set(perceptual.LOSSES)) - set(self.frozen)):
            raise ValueError(f"the loss terms {missing} need the weights of their networks in `frozen`")
        if ("adversarial" in enabled) != (self.discriminator is not None):
            raise ValueError(
                "the loss term 'adversarial' and a discriminator need each other; "
                f"the terms are {enabled} and the discriminator is {self.discriminator}"
            )
        if set(enabled) & set(perceptual.LOSSES) and self.net.image_channels not in (1, 3):
            raise ValueError(f"perceptual losses take images of 1 or 3 channels, not {self.net.image_channels}")
        if "lpips" in enabled and self.net.resolution < 16:
            raise ValueError(f"the term 'lpips' needs images of at least 16×16 pixels, not {self.net.resolution}")

    def init(self, key: PRNGKey, batch: PyTree) -> TrainState:
        """A fresh state."""
        images = jnp.zeros((1, self.net.resolution, self.net.resolution, self.net.image_channels))
        params = {self.network: self.init_network(key, images)}
        extra = {}
        if self.discriminator is not None:
            params["discriminator"], extra = self.discriminator.init(jax.random.fold_in(key, 1), images)
        return TrainState.create(params, self.init_optimizers(params), extra)

    def init_network(self, key: PRNGKey, images: Images) -> PyTree:
        """Fresh parameters of the network `self.network`."""
        return self.net.init(key, images)["params"]

    def reconstruct(
        self, params: PyTree, images: Images, keys: Key[Array, "b"] | None = None
    ) -> tuple[tuple[Images, Array], Array]:
        """((reconstruction, not clipped; logits); bits) of images, for parameters of the network `self.network`.

        Args:
          keys: one per example, for the noise of training; None for thresholded codes.
        """
        noise = None if keys is None else prng.uniform(prng.fold(keys, 0), self.net.code_shape)
        reconstruction, logits, bits = self.net.apply({"params": params}, images, noise)
        return (reconstruction, logits), bits

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The network's, and the discriminator's where there is one."""
        own = {self.network: self.optimizer}
        return own if self.discriminator is None else own | {"discriminator": self.discriminator.optimizer}

    def starts_at(self, name: str) -> int:
        return self.complete_from if name == "discriminator" else 0

    @property
    def complete_from(self) -> int:
        """The first step of the discriminator."""
        return max((term.start_step for term in self._enabled(("adversarial",))), default=0)

    def early(self) -> Stage:
        """The stage without its discriminator, whose part of the state is kept."""
        others = tuple(term for term in self.terms if term.name != "adversarial")
        return dataclasses.replace(self, terms=others, discriminator=None)

    def _enabled(self, names: tuple[str, ...]) -> list[Term]:
        return [term for term in self.terms if term.enabled and term.name in names]

    def _image_values(self, images: Array, reconstruction: Array) -> dict[str, Array]:
        """Unweighted image terms per example; `l1` and `l2` are means over pixels and channels."""
        axes = tuple(range(1, images.ndim))

        def perceptual_loss(name):
            rgb = (*images.shape[:-1], 3)  # grey images are repeated to three channels
            pair = (jnp.broadcast_to(x, rgb) for x in (reconstruction, images))
            return perceptual.LOSSES[name](self.frozen[name], *pair, dtype=self.net.dtype)

        values = {
            "l1": lambda: jnp.abs(images - reconstruction).mean(axes),
            "l2": lambda: jnp.square(images - reconstruction).mean(axes),
        } | {name: lambda name=name: perceptual_loss(name) for name in perceptual.LOSSES}
        return {term.name: values[term.name]() for term in self._enabled(IMAGE_TERMS)}

    def _code_values(
        self, logits: Array, bits: Array, mask: Array | None = None, usage: Array | None = None
    ) -> dict[str, Array]:
        """Unweighted terms that regularise the code; see `train.regularizers`."""
        values = {
            "sample_entropy": lambda: regularizers.sample_entropy(logits),
            "batch_entropy": lambda: regularizers.batch_entropy(logits, mask, usage),
            "commitment": lambda: regularizers.commitment(logits, bits > 0.5),
            "official": lambda: regularizers.official(logits, use_tanh=self.net.signed),
        }
        return {term.name: values[term.name]() for term in self._enabled(CODE_TERMS)}

    def _weighted(
        self, names: tuple[str, ...], step: Array, values: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        return weighted_sum(self._enabled(names), values, step), {name: v.mean() for name, v in values.items()}

    def usage(self, state: TrainState, batch: PyTree) -> Array:
        """How often each bit is used in a batch; see `regularizers.usage`."""
        params = {"params": state.params["autoencoder"]}
        return regularizers.usage(self.net.apply(params, to_float(batch["image"]), method="encode"))

    def gradients(
        self, state: TrainState, batch: PyTree, keys: Array, *, usage=None, kernels=None, only_kernels=False
    ) -> PyTree:
        """Losses and gradients of one (micro-)batch, with one backward pass through the network.

        The gradient at the reconstruction is computed first, then pulled back through the network once. The adaptive
        weight needs the gradients of two losses at the decoder's last kernel. They use the same linearised network, of
        which the compiler removes everything but that kernel's convolution.

        Args:
          keys: (b,), one key per example, the only source of randomness.
          usage: of the full batch, if this is a micro-batch.
          kernels: the two gradients at the last kernel for the full batch, if this is a micro-batch.
          only_kernels: return only these two gradients.

        Returns:
          Means over examples: `loss`, `values` (metrics), `gradients` by network, `statistics` of the discriminator.
        """
        images, step = to_float(batch["image"]), state.step

        def autoencode(params):
            return self.reconstruct(params, images, keys)

        def image_loss(reconstruction):
            return self._weighted(IMAGE_TERMS, step, self._image_values(images, reconstruction))

        def code_loss(logits):
            return self._weighted(CODE_TERMS, step, self._code_values(logits, bits, usage=usage))

        (reconstruction, logits), pull, bits = jax.vjp(autoencode, state.params[self.network], has_aux=True)
        (loss, values), image_gradient = jax.value_and_grad(image_loss, has_aux=True)(reconstruction)
        (code_total, code_values), code_gradient = jax.value_and_grad(code_loss, has_aux=True)(logits)
        loss, values = loss + code_total, values | code_values
        gradients, statistics = {}, {}

        if self.discriminator is not None:
            # no `cond` on its start step: on CPUs, convolutions under one cost more than this; see `early`
            output = self.discriminator.forward(
                state.params["discriminator"], state.extra, images, reconstruction, prng.fold(keys, 1)
            )
            (term,) = self._enabled(("adversarial",))
            factor, statistics = term.weight_at(step), output.statistics
            if self.discriminator.adversarial.adaptive:
                if kernels is None:
                    no_gradient = jnp.zeros_like(logits)
                    kernels = [
                        pull((g, no_gradient))[0]["decoder"]["conv_out"]["kernel"]
                        for g in (image_gradient, output.image_gradient)
                    ]
                if only_kernels:
                    return kernels
                adaptive = jnp.where(
                    step >= term.start_step, self.discriminator.adversarial.adaptive_weight(*kernels), 0
                )
                factor, values = factor * adaptive, values | {"adaptive_weight": adaptive}
            loss = loss + factor * output.loss
            image_gradient = image_gradient + factor * output.image_gradient
            values |= {"adversarial": output.loss, **output.values}
            gradients["discriminator"] = output.gradient

        (gradients[self.network],) = pull((image_gradient, code_gradient))
        return {"loss": loss, "values": values, "gradients": gradients, "statistics": statistics}

    def batch_gradients(self, state: TrainState, batch: PyTree, keys: Array) -> PyTree:
        """`gradients` of a full batch, one micro-batch at a time.

        Quantities that are not means over examples (the usage of bits, the adaptive weight) are first computed for the
        full batch, in an extra pass each.
        """

        def over_batch(function, keys):
            return accumulate(function, batch, keys, micro_batches=self.micro_batches)

        usage = kernels = None
        if self.micro_batches > 1:
            if any(term.name == "batch_entropy" for term in self._enabled(CODE_TERMS)):
                usage = over_batch(lambda part, _: self.usage(state, part), jnp.arange(keys.shape[0]))
            if self.discriminator is not None and self.discriminator.adversarial.adaptive:
                kernels = over_batch(
                    lambda *part: self.gradients(state, *part, usage=usage, only_kernels=True),
                    jax.random.clone(keys),  # the same noise in both passes, on purpose
                )
        return over_batch(lambda *part: self.gradients(state, *part, usage=usage, kernels=kernels), keys)

    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One optimizer step of the autoencoder and of the discriminator; metrics are scalars."""
        keys = prng.per_example(key, batch["image"].shape[0])
        result = self.batch_gradients(state, batch, keys)
        finite = all_finite(result["loss"], result["gradients"])
        updated = self.update(state, result["gradients"])
        extra = None
        if self.discriminator is not None:
            (term,) = self._enabled(("adversarial",))
            new_extra = self.discriminator.next_extra(state.extra, result["statistics"], result["values"])
            # before its start step the discriminator stays as initialised, without even weight decay
            new = (*updated["discriminator"], new_extra)
            old = (state.params["discriminator"], state.opt_state["discriminator"], state.extra)
            *updated["discriminator"], extra = jax.tree.map(
                lambda a, b: jnp.where(state.step >= term.start_step, a, b), new, old
            )
        new_state = state.advance(
            params=state.params | {name: params for name, (params, _) in updated.items()},
            opt_state=state.opt_state | {name: opt_state for name, (_, opt_state) in updated.items()},
            finite=finite,
            ema_decay=self.optimizer.ema_decay,
            extra=extra,
        )
        return new_state, {"loss": result["loss"], **result["values"], "finite": finite, "skipped": new_state.skipped}

    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict:
        """Loss terms, PSNR and bit statistics of the EMA parameters with thresholded codes, and the discriminator's
        losses and accuracy."""
        images, mask = to_float(batch["image"]), batch["mask"]
        (reconstruction, logits), bits = self.reconstruct(state.ema[self.network], images)
        values = self._image_values(images, reconstruction) | self._code_values(logits, bits, mask)
        if self.discriminator is not None:
            values |= self.discriminator.evaluate(state.params["discriminator"], state.extra, images, reconstruction)
        per_example = {name: jnp.broadcast_to(value, mask.shape) for name, value in values.items()}
        per_example |= {
            "psnr": jnp.minimum(psnr(images, jnp.clip(reconstruction, 0, 1)), 100),  # a mean must stay finite
            "bit_uncertainty": regularizers.sample_entropy(logits),
        }
        return {name: metrics.mean(value, mask) for name, value in per_example.items()} | {
            "code": BitStatistics.from_code(binarize.to_code(logits), mask)
        }

    def warnings(self, values: dict) -> list[str]:
        """Warnings about the code and the discriminator."""
        warnings, k = [], len(values["bit_mean"])
        if values["dead_bits"]:
            warnings.append(
                f"{values['dead_bits']:.0f} of {k} bits are dead (always 0 or always 1 over the validation set)"
            )
        if values["repeated_bits"]:
            warnings.append(
                f"{values['repeated_bits']:.0f} of {k} bits repeat another one (their correlation is beyond ±0.95)"
            )
        if values["bit_correlation"] > 0.3:
            warnings.append(f"bits are redundant: their mean absolute correlation is {values['bit_correlation']:.2f}")
        if warnings:
            warnings[-1] += "; a weight on autoencoder_loss.batch_entropy keeps bits in use"
        return warnings + (self.discriminator.warnings(values) if self.discriminator is not None else [])
