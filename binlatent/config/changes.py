"""Which keys of a work directory's config may change, and when the others become fixed."""

import re
from collections.abc import Collection

from etils import epath
from ml_collections import ConfigDict

from binlatent.config.files import differences
from binlatent.errors import UserError

# Keys that may always change, because they do not affect what has been learned. A text encoder may be moved; whether it is
# the same one is checked by its weights (`text.encoder.check_record`).
FREE = re.compile(
    r"(sampling|plan|mesh|text)\.|data\.(workers|path)$"
    r"|.*_training\.(num_steps|steps_per_call|micro_batches|log_every|evaluate_\w+|checkpoint_every|keep_\w+|on_nonfinite)$"
)
LEARNING_RATE = re.compile(r".*_optimizer\.learning_rate$")  # may be lowered after a non-finite loss
PRIOR = re.compile(r"prior(_\w+)?\.")


def is_fixed(key: str, trained: Collection[str]) -> bool:
    """Whether a key may no longer change, because a stage that depends on it has a checkpoint.

    The prior's keys are fixed by the prior, all others by either stage, because the prior learns the autoencoder's codes.

    Args:
      key: `section.name`.
      trained: stages that have a checkpoint.
    """
    if FREE.match(key) or LEARNING_RATE.match(key):
        return False
    return "prior" in trained if PRIOR.match(key) else bool(trained)


def check_changes(workdir: epath.PathLike, old: ConfigDict, new: ConfigDict, trained: Collection[str]) -> list[str]:
    """Checks changes to the config of a work directory.

    Args:
      trained: stages that have a checkpoint in the work directory.

    Returns:
      Warnings about changes that are allowed, but alter the course of the run.

    Raises:
      UserError: fixed keys differ.
    """
    different = differences(old, new)
    fixed = {key: values for key, values in different.items() if is_fixed(key, trained)}
    if fixed:
        lines = [
            f"  {key}: {stored!r} in the work directory, {value!r} requested" for key, (stored, value) in fixed.items()
        ]
        raise UserError(
            f"{workdir} has another config, and these keys are fixed because a stage has a checkpoint:\n"
            + "\n".join(lines)
            + "\nUse another --workdir, or the same config."
        )
    return [
        f"{key} changes from {stored!r} to {value!r} at the next step: the run differs from one with either value throughout"
        for key, (stored, value) in different.items()
        if LEARNING_RATE.match(key) and ("prior" if PRIOR.match(key) else "autoencoder") in trained
    ]
