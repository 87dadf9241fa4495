"""What a person may choose when sampling; never an option of a model."""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # JAX is imported with them: `binlatent sample --help` reads the fields alone
    from binlatent.diffusion.schedule import Schedule
    from binlatent.sampling.guidance import Guidance
    from binlatent.sampling.sampler import Sampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Defaults of a work directory's `sampling` section; each can be replaced in a call.

    Attributes:
      steps: network calls of the walk from noise to a code.
      guidance: w of f = (1 + w) f_cond − w f_uncond; 0 for none.
      guidance_interval, guidance_power: when it acts, see `Guidance`.
      temperature: flip log-odds are divided by it.
      posterior: `mixture` or `plugin`.
      last_step: `sample` or `argmax`.
      power: spacing of the time grid.

    Raises:
      ValueError: a value out of range.
    """

    steps: int = 16
    guidance: float = 0.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_power: float = 0.0
    temperature: float = 1.0
    posterior: str = "mixture"
    last_step: str = "sample"
    power: float = 1.0

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}: a positive number is expected")
        self.when()

    def when(self) -> "Guidance":
        """When guidance acts."""
        from binlatent.sampling.guidance import Guidance

        return Guidance(interval=tuple(self.guidance_interval), power=self.guidance_power)

    def sampler(self, schedule: "Schedule") -> "Sampler":
        """The sampler for a model trained with `schedule`."""
        from binlatent.sampling.sampler import Sampler

        return Sampler(
            schedule=schedule, steps=self.steps, posterior=self.posterior, last_step=self.last_step, power=self.power
        )
