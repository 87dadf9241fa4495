"""Where a run begins: at its latest checkpoint, or at a fresh state."""

from collections.abc import Callable
from typing import Any

import jax

from binlatent.checkpoint import Checkpoints
from binlatent.console import warn
from binlatent.errors import UserError
from binlatent.train.compile import StagePrograms
from binlatent.train.optimizer import Optimizer
from binlatent.train.options import Training
from binlatent.train.state import TrainState


def first_state(
    checkpoints: Checkpoints,
    programs: StagePrograms,
    *,
    training: Training,
    metadata: dict[str, Any],
    initial: Callable[[TrainState], TrainState] | None = None,
) -> TrainState:
    """The state of the latest checkpoint that restores, or a fresh one.

    Args:
      training: of the run that begins.
      metadata: what the run will write into its checkpoints; `seed`, `batch_size` and `num_steps` are compared.
      initial: changes a fresh state.

    Raises:
      UserError: the checkpoint is of a run that this one would not continue.
    """
    restored = checkpoints.restore(programs.state_spec)
    if restored is None:
        state = programs.init()
        return state if initial is None else jax.device_put(initial(state), programs.shardings)
    state, saved = restored
    step = int(state.step)
    for what in ("seed", "batch_size"):
        if saved[what] != metadata[what]:
            raise UserError(
                f"the checkpoint in {checkpoints.folder} was made with {what} {saved[what]}, this run asks for "
                f"{metadata[what]}: data order and noise would not continue. Use the same {what} or another work directory."
            )
    if step % training.steps_per_call:
        raise UserError(
            f"the checkpoint in {checkpoints.folder} is of step {step}, which is no multiple of steps_per_call "
            f"{training.steps_per_call}; go on with a number that divides it"
        )
    if step < training.num_steps:
        check_length(programs.stage.optimizer, step, saved["num_steps"], training.num_steps)
    return state


def check_length(optimizer: Optimizer, step: int, old: int, new: int) -> None:
    """Refuses to make a finished run longer where its learning rate would jump up, and tells of smaller changes.

    Args:
      step: of the checkpoint.
      old, new: num_steps of the run so far, and from here on.

    Raises:
      UserError: the run had ended, and its schedule had brought the learning rate down.
    """
    before, after = (float(optimizer.learning_rate_at(num)(step)) for num in (old, new))
    if abs(after - before) <= 1e-3 * optimizer.learning_rate:
        return
    if step >= old:
        raise UserError(
            f"num_steps was {old} and is {new} now, but the run has ended: its {optimizer.schedule} schedule has brought "
            f"the learning rate down to {before:.3g}, and {new} steps would raise it to {after:.3g} again. Train on in "
            "another work directory that starts from this one (--init_from), with a warm-up of its own; a run that is to "
            "be made longer needs the schedule 'constant'."
        )
    warn(
        f"num_steps was {old} and is {new} now: the learning rate changes from {before:.3g} to {after:.3g} at step {step}"
    )
