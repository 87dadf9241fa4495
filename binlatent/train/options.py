"""The `autoencoder_training` and `prior_training` sections of a config."""

import dataclasses

ON_NONFINITE = ("stop", "skip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How long a stage runs, and what it does on the way.

    Attributes:
      num_steps: optimizer steps.
      batch_size: examples of a step, over all devices and processes.
      steps_per_call: steps of one call of the compiled program, which saves the host's time where steps are short; it
        must divide the number of steps and of those between evaluations and checkpoints.
      micro_batches: parts in which a batch is computed, one after the other, to save memory; the result is the same.
      log_every, evaluate_every, checkpoint_every: in steps; all of them happen at the last step too.
      evaluate_batches: batches of one evaluation; 0 for the whole validation set.
      keep_checkpoints: how many of the latest are kept.
      keep_every: checkpoints at multiples of it are kept for good; 0 for none.
      on_nonfinite: `stop` at a non-finite loss, or `skip` the step and count it. Either way the state is untouched.

    Raises:
      ValueError: a number out of range or an unknown choice.
    """

    num_steps: int
    batch_size: int
    steps_per_call: int = 1
    micro_batches: int = 1
    log_every: int = 50
    evaluate_every: int = 1000
    evaluate_batches: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    keep_every: int = 0
    on_nonfinite: str = "stop"

    def __post_init__(self):
        several = ("num_steps", "evaluate_every", "checkpoint_every")
        for name in (*several, "batch_size", "steps_per_call", "micro_batches", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is expected")
        for name in ("evaluate_batches", "keep_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: 0 or more is expected")
        for name in several:
            if getattr(self, name) % self.steps_per_call:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: a multiple of steps_per_call {self.steps_per_call} is expected"
                )
        if self.on_nonfinite not in ON_NONFINITE:
            raise ValueError(f"on_nonfinite is {self.on_nonfinite!r}: one of {', '.join(ON_NONFINITE)} is expected")

    def due(self, step: int, every: int) -> bool:
        """Whether something that happens `every` so many steps, and at the last one, happens after `step` steps."""
        return step == self.num_steps or step % every == 0
