"""The options of sampling, none of which is an option of a model. Importing it does not import JAX."""

import dataclasses
import math
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Defaults of a work directory's `sampling` section; each can be replaced in a call.

    Attributes:
      steps: Calls of the denoiser from noise to a code. More steps are slower and closer to the model's distribution.
      guidance: Weight w of classifier-free guidance, (1 + w) · conditional − w · unconditional estimate; 0 is none.
      guidance_interval: Times at which guidance acts, within 0 (data) and 1 (noise).
      guidance_power: Guidance is weighted by (1 − t) to this power: 0 is constant, more guides late, near the data.
      temperature: Below 1 samples are more typical and less varied. 1 samples the model as it is.
      posterior: The reverse step: mixture is exact for a perfect denoiser, plugin is the PyTorch release's.
      last_step: Draw the last step as any other (sample), or take the likelier value of every bit (argmax).

    Raises:
      ValueError: a value out of range.
    """

    steps: int = 16
    guidance: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_power: float = 0.0
    temperature: float = 1.0
    posterior: Literal["mixture", "plugin"] = "mixture"
    last_step: Literal["sample", "argmax"] = "sample"

    def __post_init__(self):
        for name, choices in (("posterior", ("mixture", "plugin")), ("last_step", ("sample", "argmax"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; there are {', '.join(choices)}")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: at least 1 is expected")
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance is {self.guidance}: a finite number is expected")
        if not 0 <= self.guidance_power < math.inf:
            raise ValueError(f"guidance_power is {self.guidance_power}: a finite number, at least 0, is expected")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: a positive, finite number is expected")
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance_interval is {self.guidance_interval}: 0 <= low <= high <= 1 is expected")

    def for_student(self, steps: int, guidance: float) -> "SamplingOptions":
        """The same as far as a student (`train.student`) has learned it: its number of steps, each of them drawn exactly, and
        constant guidance that is not beyond its largest weight."""
        learned = {
            "guidance_interval": (0.0, 1.0),
            "guidance_power": 0.0,
            "last_step": "sample",
            "posterior": "mixture",
        }
        return dataclasses.replace(self, steps=steps, guidance=max(0.0, min(self.guidance, guidance)), **learned)

    def when(self) -> Any:
        """When guidance acts, a `Guidance`."""
        from binlatent.sampling.guidance import Guidance

        return Guidance(interval=tuple(self.guidance_interval), guidance_power=self.guidance_power)

    def sampler(self, schedule: Any) -> Any:
        """The `Sampler` for a model trained with a `Schedule`."""
        from binlatent.sampling.sampler import Sampler

        return Sampler(
            schedule=schedule,
            steps=self.steps,
            posterior=self.posterior,
            last_step=self.last_step,
        )
