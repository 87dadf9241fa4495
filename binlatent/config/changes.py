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
# Of other keys, the stages that they are for; what is in none of these is for all of them.
STAGES = {
    re.compile(r"prior(_\w+)?\."): {"prior", "student"},
    re.compile(r"codes\."): {"prior", "decoder", "student"},
    re.compile(r"(student(_\w+)?|auxiliary_optimizer)\."): {"student"},
    re.compile(r"decoder(_\w+)?\."): {"decoder"},
}
DISCRIMINATOR = re.compile(r"discriminator(_\w+)?\.")


def stages_of(key: str, *, discriminator: bool = True) -> set[str]:
    """The stages that depend on a key. On the autoencoder's keys they all do, because they use its codes.

    Args:
      key: `section.name`.
      discriminator: whether the autoencoder is trained with one.
    """
    if DISCRIMINATOR.match(key) and not discriminator:
        return {"decoder"}
    found = [stages for pattern, stages in STAGES.items() if pattern.match(key)]
    return found[0] if found else {"autoencoder", "prior", "decoder", "student"}


def is_fixed(key: str, trained: Collection[str], *, discriminator: bool = True) -> bool:
    """Whether a key may no longer change, because a stage that depends on it has a checkpoint.

    Args:
      trained: stages that have a checkpoint.
      key, discriminator: see `stages_of`.
    """
    if FREE.match(key) or LEARNING_RATE.match(key):
        return False
    return bool(stages_of(key, discriminator=discriminator) & set(trained))


def check_changes(workdir: epath.PathLike, old: ConfigDict, new: ConfigDict, trained: Collection[str]) -> list[str]:
    """Checks changes to the config of a work directory.

    Args:
      trained: stages that have a checkpoint in the work directory.

    Returns:
      Warnings about changes that are allowed, but alter the course of the run.

    Raises:
      UserError: fixed keys differ.
    """
    different, adversarial = differences(old, new), old.autoencoder_loss.adversarial
    discriminator = bool(adversarial.weight or adversarial.initial_weight)
    fixed = {key: values for key, values in different.items() if is_fixed(key, trained, discriminator=discriminator)}
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
        if LEARNING_RATE.match(key) and stages_of(key, discriminator=discriminator) & set(trained)
    ]
