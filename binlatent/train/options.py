"""The sections `…_training`, `decoder` and `student` of a config."""

import dataclasses

ON_NONFINITE = ("stop", "skip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The length of a stage's training, and the intervals of logging, evaluation and checkpoints.

    Attributes:
      num_steps: optimizer steps.
      batch_size: examples per step, over all devices and processes.
      steps_per_call: steps per call of the compiled program, which reduces host overhead where steps are short; it must
        divide num_steps, evaluate_every and checkpoint_every.
      micro_batches: number of parts in which a batch is processed, one after another, to save memory; the result is the
        same.
      log_every, evaluate_every, checkpoint_every: intervals in steps; all three also happen at the last step.
      evaluate_batches: batches per evaluation; 0 for the whole validation set.
      keep_checkpoints: number of latest checkpoints to keep.
      keep_every: checkpoints at multiples of this step are kept forever; 0 for none.
      on_nonfinite: `stop` at a non-finite loss, or `skip` the step and count it. Either way the state is unchanged.

    Raises:
      ValueError: a number is out of range, or a choice is unknown.
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
        intervals = ("num_steps", "evaluate_every", "checkpoint_every")
        for name in (*intervals, "batch_size", "steps_per_call", "micro_batches", "log_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is expected")
        for name in ("evaluate_batches", "keep_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: 0 or more is expected")
        for name in intervals:
            if getattr(self, name) % self.steps_per_call:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: a multiple of steps_per_call {self.steps_per_call} is expected"
                )
        if self.on_nonfinite not in ON_NONFINITE:
            raise ValueError(f"on_nonfinite is {self.on_nonfinite!r}: one of {', '.join(ON_NONFINITE)} is expected")

    def due(self, step: int, every: int) -> bool:
        """Whether something with interval `every` is due after `step` steps; it is at the last step."""
        return step == self.num_steps or step % every == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """What the decoder is given while it is trained on (`train.decoder`).

    Attributes:
      flip_rate: the probability with which each bit is flipped before it is decoded, to train for errors of the prior.

    Raises:
      ValueError: it is no probability up to one half.
    """

    flip_rate: float | int = 0.0

    def __post_init__(self):
        if not 0 <= self.flip_rate <= 0.5:
            raise ValueError(f"flip_rate is {self.flip_rate}: a probability from 0 to 0.5 is expected")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """What a student of the prior is trained for (`train.student`).

    Attributes:
      steps: the steps that it makes a code in.
      guidance: the largest weight of guidance that it can be given; 0 for none.
      anchor: the weight of its cross-entropy on training codes, from which the weights of its components learn.

    Raises:
      ValueError: a number is out of range.
    """

    steps: int = 4
    guidance: float | int = 0.0
    anchor: float | int = 0.01

    def __post_init__(self):
        if not 1 <= self.steps <= 16:
            raise ValueError(f"steps is {self.steps}: a number from 1 to 16 is expected")
        for name in ("guidance", "anchor"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: 0 or more is expected")
