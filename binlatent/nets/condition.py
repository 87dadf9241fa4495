"""What a denoiser is conditioned on: one pytree for classes, vectors and texts, in training, sampling and evaluation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax.numpy as jnp


@flax.struct.dataclass
class Condition:
    """Conditions of b examples; a part that a model does not have is None. A batch has them under the same names.

    `label` int (b,): classes. `vector` (b, d): an embedding, or a text's pooled features, added to the time embedding.
    `tokens`: what is read by cross-attention, features (b, n, d) of a text or int (b, n), its words by number.
    `token_mask` bool (b, n): which tokens count, at least one an example; None: all. `guidance` (b,): the weight of a student's
    guidance (`train.student`), None for 0; no batch has it.
    """

    label: Any = None
    vector: Any = None
    tokens: Any = None
    token_mask: Any = None
    guidance: Any = None

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "Condition | None":
        """The conditions in a batch; None where it has none."""
        names = [field.name for field in dataclasses.fields(cls)]
        found = {name: batch[name] for name in names if batch.get(name) is not None}
        return cls(**found) if found else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What a model is conditioned on; several of these may go together.

    Attributes:
      num_classes: classes; 0 for none.
      vector_width: features of a vector; 0 for none.
      token_width: features of each text token; 0 for none.
      vocabulary: number of words, where texts come as numbers of words for a text tower of the model's own; 0 for none.
      guidance: whether the guidance weight is an input, as of a student; an example without a condition has none.

    Raises:
      ValueError: texts in two forms.
    """

    num_classes: int = 0
    vector_width: int = 0
    token_width: int = 0
    vocabulary: int = 0
    guidance: bool = False

    def __post_init__(self):
        if self.token_width and self.vocabulary:
            raise ValueError(
                f"token_width {self.token_width} and vocabulary {self.vocabulary}: a text has one of two forms"
            )

    @classmethod
    def of(cls, num_classes: int, condition_shape: tuple[int, ...], text: Mapping[str, Any] | None) -> "Conditioning":
        """Of what a checkpoint or a set of codes says.

        Args:
          condition_shape: of an embedding stored with an image: (d,) or (n, d); empty for none.
          text: the record of a text encoder, see `text.encoder`; None for none.
        """
        widths = {"vector_width": 0, "token_width": 0, "vocabulary": 0}
        if condition_shape:
            widths["token_width" if len(condition_shape) == 2 else "vector_width"] = condition_shape[-1]
        if text:
            widths = {name: int(text.get(name, 0)) for name in widths}
        return cls(num_classes=num_classes, **widths)

    def __bool__(self) -> bool:
        return bool(self.num_classes or self.vector_width or self.token_width or self.vocabulary)

    @property
    def texts(self) -> bool:
        """Whether tokens are read by cross-attention."""
        return bool(self.token_width or self.vocabulary)

    def absent(self, b: int) -> Condition:
        """A condition of the right shapes, to be replaced by the null."""
        tokens = jnp.zeros((b, 1, self.token_width)) if self.token_width else jnp.zeros((b, 1), jnp.int32)
        return Condition(
            label=jnp.zeros(b, jnp.int32) if self.num_classes else None,
            vector=jnp.zeros((b, self.vector_width)) if self.vector_width else None,
            tokens=tokens if self.texts else None,
        )

    def check(self, condition: Condition, b: int) -> None:
        """Compares the shapes of a condition with these.

        Raises:
          ValueError: another shape, or a part that is missing or too many.
        """
        expected = self.absent(b)
        for field in ("label", "vector", "tokens"):
            given, wanted = getattr(condition, field), getattr(expected, field)
            shapes = [None if x is None else _without_length(field, x) for x in (given, wanted)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"a condition with {field} of shape {None if given is None else given.shape} given to a denoiser that "
                    f"expects {'none' if wanted is None else _shown(field, wanted)}"
                )
        if condition.guidance is not None and not self.guidance:
            raise ValueError("a guidance weight is given to a denoiser that has no input for it")
        if condition.token_mask is not None and condition.token_mask.shape != condition.tokens.shape[:2]:
            raise ValueError(
                f"a token_mask of shape {condition.token_mask.shape} given for tokens {condition.tokens.shape}"
            )


def _without_length(field: str, x: Any) -> tuple[int, ...]:
    """The shape, but for the number of tokens, which may be any."""
    return (x.shape[0], *x.shape[2:], x.ndim) if field == "tokens" else x.shape


def _shown(field: str, x: Any) -> str:
    return f"({x.shape[0]}, any{''.join(f', {n}' for n in x.shape[2:])})" if field == "tokens" else str(x.shape)
