"""Decoder fine-tuning: the decoder is trained on, while the encoder, and so the codes and their prior, stay as they are."""

import dataclasses
from typing import ClassVar

from binlatent import prng
from binlatent.nets import binarize
from binlatent.nets.autoencoder import decoder_params
from binlatent.train.autoencoder import CODE_TERMS, AutoencoderStage
from binlatent.typing import Array, Images, Key, PRNGKey, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DecoderStage(AutoencoderStage):
    """Trains the decoder of a trained autoencoder on images, with the losses on images and the discriminator of stage 1.

    The parameters that it trains are the network `decoder`: the embedding of bits and the decoder. No gradient of the
    encoder is computed.

    Attributes:
      frozen: has in addition `encoder`, the autoencoder's parameters without the decoder's.
      drawn: the decoder gets bits drawn from their probabilities, as in stage 1, instead of thresholded ones; to be set
        where the prior learns drawn codes.
      flip_rate: the probability with which each bit is then flipped, to train for errors of the prior.

    Raises:
      ValueError: see `AutoencoderStage`; also a term of the code.
    """

    network: ClassVar[str] = "decoder"

    drawn: bool = False
    flip_rate: float | int = 0.0

    def __post_init__(self):
        super().__post_init__()
        if terms := [term.name for term in self._enabled(CODE_TERMS)]:
            raise ValueError(f"the loss terms {terms} train the code, which is fixed while the decoder is trained")

    def init_network(self, key: PRNGKey, images: Images) -> PyTree:
        return decoder_params(super().init_network(key, images))

    def reconstruct(
        self, params: PyTree, images: Images, keys: Key[Array, "b"] | None = None
    ) -> tuple[tuple[Images, Array], Array]:
        logits = self.net.apply({"params": self.frozen["encoder"]}, images, method="encode")
        bits = binarize.to_code(logits)
        if keys is not None:
            if self.drawn and not self.net.deterministic:
                bits = binarize.bernoulli(logits, prng.uniform(prng.fold(keys, 0), self.net.code_shape)) > 0.5
            if self.flip_rate:
                bits = bits ^ (prng.uniform(prng.fold(keys, 2), self.net.code_shape) < self.flip_rate)
        return (self.net.apply({"params": params}, bits, method="decode"), logits), bits

    def warnings(self, values: dict) -> list[str]:
        """Warnings about the discriminator; the code does not change any more."""
        return self.discriminator.warnings(values) if self.discriminator is not None else []
