"""The options of an evaluation."""

import dataclasses
from typing import Any

from binlatent.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The options of an evaluation. Sampling options are the work directory's unless `sampling` overrides them.

    Attributes:
      num: number of samples.
      seed: of the samples and of the likelihood's noise.
      reference_split: `train` or `validation`: the images that samples are compared with.
      reference_num: compare with only so many of them, spread evenly (default: all).
      likelihood_num: number of validation images whose codes are scored.
      likelihood_steps: T of the bound.
      sampling: changes to `SamplingOptions`.
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
