"""What an evaluation is asked for."""

import dataclasses
from typing import Any

from binlatent.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is evaluated. Sampling options are those of the work directory unless `sampling` replaces them.

    Attributes:
      num: samples.
      seed: of samples and of the likelihood's noise.
      reference_split: `train` or `validation`: what samples are held against.
      reference_num: its first so many images; None for all.
      likelihood_num: validation images whose codes are scored.
      likelihood_steps: T of the bound.
      sampling: changes of `SamplingOptions`.
    """

    num: int = 10_000
    seed: int = 0
    reference_split: str = "train"
    reference_num: int | None = None
    likelihood_num: int = 1024
    likelihood_steps: int = 256
    sampling: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ("num", "likelihood_num", "likelihood_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: at least 1 is expected")
        if self.reference_split not in ("train", "validation"):
            raise UserError(f"the reference split is {self.reference_split!r}: train or validation is expected")
