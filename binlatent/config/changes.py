"""Which keys of a work directory's config may change, and from when on the others are fixed."""

import re
from collections.abc import Collection

from etils import epath
from ml_collections import ConfigDict

from binlatent.config.files import differences
from binlatent.errors import UserError

# Keys that may always change: they do not change what has been learned so far.
FREE = re.compile(
    r"(sampling|plan|mesh)\.|data\.(workers|path)$"
    r"|.*_training\.(num_steps|steps_per_call|micro_batches|log_every|evaluate_\w+|checkpoint_every|keep_\w+|on_nonfinite)$"
)
LEARNING_RATE = re.compile(r".*_optimizer\.learning_rate$")  # lowered after a loss that was not finite
PRIOR = re.compile(r"prior(_\w+)?\.")


def is_fixed(key: str, trained: Collection[str]) -> bool:
    """Whether a key may no longer change, since a stage that depends on it has a checkpoint.

    The prior's keys are fixed by the prior; all others by either stage, as the prior learns the codes of the autoencoder.

    Args:
      key: `section.name`.
      trained: stages that have a checkpoint.
    """
    if FREE.match(key) or LEARNING_RATE.match(key):
        return False
    return "prior" in trained if PRIOR.match(key) else bool(trained)


def check_changes(workdir: epath.PathLike, old: ConfigDict, new: ConfigDict, trained: Collection[str]) -> list[str]:
    """Compares the config of a work directory with the one asked for.

    Args:
      trained: stages that have a checkpoint in the work directory.

    Returns:
      Warnings for people: changes that are made, but make the run another one than it was begun as.

    Raises:
      UserError: keys differ that are fixed.
    """
    different = differences(old, new)
    fixed = {key: values for key, values in different.items() if is_fixed(key, trained)}
    if fixed:
        lines = [f"  {key}: {there!r} there, {asked!r} asked for" for key, (there, asked) in fixed.items()]
        raise UserError(
            f"{workdir} was made with another config, and these keys are fixed since a stage has a checkpoint:\n"
            + "\n".join(lines)
            + "\nUse another --workdir, or the same config."
        )
    return [
        f"{key} was {there!r} and is {asked!r} from the next step on: the run differs from one begun with either"
        for key, (there, asked) in different.items()
        if LEARNING_RATE.match(key) and ("prior" if PRIOR.match(key) else "autoencoder") in trained
    ]
