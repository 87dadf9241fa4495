"""Where a run begins: at its latest checkpoint, or at a fresh state."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from binlatent import mesh as mesh_lib
from binlatent.checkpoint import Checkpoints, load_parts
from binlatent.console import say, warn
from binlatent.errors import UserError
from binlatent.files import user_path
from binlatent.nets.autoencoder import decoder_params
from binlatent.train.compile import StagePrograms
from binlatent.train.optimizer import Optimizer
from binlatent.train.options import Training
from binlatent.train.state import TrainState
from binlatent.typing import PyTree


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
      metadata: what the run will write into its checkpoints; `seed`, `batch_size`, `data`, `autoencoder`, `prior` and
        `num_steps` are compared.
      initial: changes a fresh state.

    Raises:
      UserError: the checkpoint is of a run that this one would not continue.
    """
    if (begins := programs.stage.complete_from) >= training.num_steps:
        warn(
            f"a loss term starts at step {begins}, after the last one, {training.num_steps}: lower its start_step to use it"
        )
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
    for what, name in (("data", "data set"), ("autoencoder", "autoencoder"), ("prior", "prior")):
        if saved.get(what) != metadata.get(what):
            raise UserError(
                f"the checkpoint in {checkpoints.folder} was made with another {name} (fingerprint {saved.get(what)}, now "
                f"{metadata.get(what)}): this run would not continue it. Restore the {name}, or use another work directory."
            )
    if step % training.steps_per_call:
        raise UserError(
            f"the checkpoint in {checkpoints.folder} is of step {step}, which is no multiple of steps_per_call "
            f"{training.steps_per_call}; go on with a number that divides it"
        )
    if step < training.num_steps:
        for name, optimizer in programs.stage.optimizers.items():
            before = programs.stage.starts_at(name)
            check_length(optimizer, step, saved["num_steps"], training.num_steps, before)
    return state


def check_length(optimizer: Optimizer, step: int, old: int, new: int, first: int = 0) -> None:
    """Refuses to make a finished run longer where its learning rate would jump up, and tells of smaller changes.

    Args:
      step: of the checkpoint.
      old, new: num_steps of the run so far, and from here on.
      first: the step of the optimizer's first update, from which its schedule counts.

    Raises:
      UserError: the run had ended, and its schedule had brought the learning rate down.
    """
    if step <= first:
        return
    before, after = (float(optimizer.learning_rate_at(num - first)(step - first)) for num in (old, new))
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


def check_codes_stay(workdir: epath.PathLike, learned: Mapping[str, str], autoencoder: str, old: int, new: int) -> None:
    """Refuses to train an autoencoder on where other stages have learned its codes.

    A checkpoint that is damaged may be trained again: the codes are then of a later one, and become the same.

    Args:
      learned: by stage, the fingerprint of the autoencoder whose codes it learned.
      autoencoder: the fingerprint of the autoencoder as it is.
      old, new: num_steps of the run so far, and from here on.

    Raises:
      UserError: the codes would change.
    """
    if new > old or autoencoder in learned.values():
        raise UserError(
            f"the autoencoder would be trained to {new} steps (autoencoder_training.num_steps was {old}), but "
            f"{' and '.join(learned)} in {workdir} learned the codes of the autoencoder as it is. Set num_steps to the steps "
            "that it has, train on in another work directory (--init_from), or move their folders away."
        )


def start_from(state: TrainState, workdir: epath.PathLike, stage: str, source: str | None = None) -> TrainState:
    """A fresh state with the EMA parameters of a work directory; what starts afresh is reported.

    Args:
      stage: of the state.
      source: the stage whose parameters are taken; None: the same. The stage decoder also starts from an autoencoder, a student
        from a prior.

    Raises:
      UserError: the parameters there do not have the shapes of this stage's.
    """
    parts = load_parts(user_path(workdir) / (source or stage) / "checkpoints", ("ema", "extra"))[1]
    params, extra = parts["ema"], parts["extra"]
    if source == "autoencoder":
        params = params | {"decoder": decoder_params(params["autoencoder"])}
    if source == "prior":  # which lacks the student's input of guidance
        known = flatten_dict(params["denoiser"])
        new = {name: x for name, x in flatten_dict(dict(state.params["denoiser"])).items() if name not in known}
        params = dict.fromkeys(("denoiser", "auxiliary"), unflatten_dict(_here(new) | known))
    fresh = {name: _here(x) for name, x in state.params.items() if name not in params}
    taken = {name: params[name] for name in state.params if name in params}
    for name, tree in taken.items():
        old = {mesh_lib.path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(tree)}
        new = {mesh_lib.path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(state.params[name])}
        wrong = [
            f"{k}: {old.get(k, 'absent')} there, {new.get(k, 'absent')} here"
            for k in old | new
            if old.get(k) != new.get(k)
        ]
        if wrong and name == "discriminator":  # of use for training alone, so another one may take its place
            fresh[name] = _here(state.params[name])
        elif wrong:
            raise UserError(f"{workdir} does not fit this {stage}'s {name}:\n  " + "\n  ".join(wrong[:10]))
    if fresh:
        say(f"{stage}: {', '.join(fresh)} starts afresh, {workdir} has none that fits")
    merged = jax.tree.map(lambda old, new: np.asarray(new, old.dtype), state.params, taken | fresh)
    fits = "discriminator" not in fresh and jax.tree.map(np.shape, extra) == jax.tree.map(np.shape, state.extra)
    extra = jax.tree.map(np.asarray, extra) if fits else state.extra  # the discriminator's running statistics
    return dataclasses.replace(state, params=merged, ema=merged, extra=extra)


def _here(tree: PyTree) -> PyTree:
    """Arrays of a state that may be sharded over processes, which must all call this, on this process's own devices."""
    return mesh_lib.gather(tree, mesh_lib.MeshShape().build(jax.local_devices()))
