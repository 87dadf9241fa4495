"""The only training loop. It knows neither autoencoders nor diffusion.

The order of a step is fixed: evaluate, save, take a batch, step. Evaluation and saving therefore see the state after
`step` steps, and a run that resumes from that state takes the same batch next. The last pass only evaluates and saves.
"""

import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from binlatent import mesh as mesh_lib
from binlatent import prng
from binlatent.checkpoint import Checkpoints
from binlatent.console import say
from binlatent.errors import UserError
from binlatent.train import memory, metrics, throughput
from binlatent.train.compile import StagePrograms
from binlatent.train.goodput import Goodput
from binlatent.train.lock import lock
from binlatent.train.options import Training
from binlatent.train.preemption import Preempted, StopRequest
from binlatent.train.profile import Tracer
from binlatent.train.record import NonFiniteLoss, Recorder
from binlatent.train.resume import first_state
from binlatent.train.stage import Stage
from binlatent.train.state import TrainState
from binlatent.train.watchdog import Watchdog
from binlatent.typing import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a caller may add to a run.

    Attributes:
      preview: (state, step) → a picture (h, w, c) uint8 of the state, saved at every evaluation.
      initial: called on a fresh state (not on a resumed one), to start from other parameters.
      profile: (first, last) steps to trace into `<folder>/profile`.
    """

    preview: Callable[[TrainState, int], np.ndarray] | None = None
    initial: Callable[[TrainState], TrainState] | None = None
    profile: tuple[int, int] | None = None


def train(
    stage: Stage,
    *,
    name: str,
    training: Training,
    batch_spec: PyTree,
    train_batches: Callable[[int], Iterator[PyTree]],
    eval_batches: Iterable[PyTree],
    mesh: Mesh,
    seed: int,
    folder: epath.PathLike,
    metadata: dict[str, Any],
    hooks: Hooks | None = None,
) -> TrainState:
    """Trains a stage to its last step, from its latest checkpoint where there is one.

    Args:
      name: of the stage, for people.
      batch_spec: shapes (b, …) and types of a training batch over all processes.
      train_batches: (step) → this process's rows of the batches from that step on.
      eval_batches: this process's rows of the batches of one evaluation, with a `mask`; iterated at every evaluation.
      folder: of the stage: `checkpoints`, `metrics.jsonl`, TensorBoard events and `previews` go there.
      metadata: kept beside the state in every checkpoint, with the seed, the batch size and the number of steps.

    Raises:
      UserError: the loss is not finite, a checkpoint can be neither read nor written, or it is of a run that this one
        would not continue; another process trains in the folder; a step needs more memory than a device has.
      Preempted: the process got SIGTERM or Ctrl-C, or the cluster takes its machines; the state is saved.
    """
    mesh_lib.check_batch_size(training.batch_size, mesh, training.micro_batches)
    hooks, folder, per_call = hooks or Hooks(), epath.Path(folder), training.steps_per_call
    metadata = metadata | {"seed": seed, "batch_size": training.batch_size, "num_steps": training.num_steps}
    programs = StagePrograms(stage, mesh, batch_spec, key=prng.root(seed), steps_per_call=per_call)
    goodput = Goodput()
    with contextlib.ExitStack() as opened:
        opened.enter_context(lock(folder))
        checkpoints = Checkpoints(
            folder / "checkpoints", keep=training.keep_checkpoints, keep_every=training.keep_every
        )
        opened.callback(checkpoints.close)
        if max(checkpoints.steps(), default=0) < training.num_steps:
            with goodput.during("compile"):
                memory.check(name, programs.train_steps)
        state = first_state(checkpoints, programs, training=training, metadata=metadata, initial=hooks.initial)
        start = int(state.step)
        if start >= training.num_steps:
            return state
        with goodput.during("compile"):
            programs.train_steps_from(start)
        recorder = Recorder(name, folder, training, start=start, flops=_flops(programs), goodput=goodput)
        stop, watchdog = StopRequest(), Watchdog(name)
        tracer = Tracer(folder / "profile", hooks.profile, run=(start, training.num_steps))
        for part in (recorder, stop, watchdog, tracer):
            opened.callback(part.close)
        frozen, batches = programs.frozen(), _on_devices(train_batches(start), mesh, per_call)
        goodput.enter("steps")
        try:
            for step in range(start, training.num_steps + 1, per_call):
                evaluating = step > start and training.due(step, training.evaluate_every)
                saving = step > start and training.due(step, training.checkpoint_every)
                if evaluating or saving:
                    recorder.settle()
                    watchdog.pause()
                if evaluating:
                    with goodput.during("evaluation"):
                        values = evaluate(programs, state, frozen, eval_batches)
                        preview = None if hooks.preview is None else hooks.preview(state, step)
                    recorder.evaluated(step, values, stage.warnings(values), preview)
                stopping = stop.asked()
                if saving or (stopping and step > start):
                    recorder.settle()
                    with goodput.during("checkpoint"):
                        checkpoints.save(step, state, metadata)
                if evaluating or saving:
                    recorder.pause()
                if step == training.num_steps:
                    goodput.enter("checkpoint")
                    break
                if stopping:
                    checkpoints.wait()
                    raise Preempted(name, step, interrupted=stop.interrupted)
                tracer.before(step, per_call)
                watchdog.beat(step)
                with recorder.waiting():
                    batch = next(batches)
                state, values = programs.train_steps_from(step)(state, batch, frozen)
                tracer.after(step + per_call, state)
                recorder.add(step + per_call, values)
        except NonFiniteLoss as error:
            checkpoints.save(int(state.step), state, metadata)
            checkpoints.wait()
            raise UserError(
                f"{name}: {error}. The state without that step is saved in {checkpoints.folder}. Lower the learning rate, "
                "or set on_nonfinite to 'skip'."
            ) from error
        checkpoints.wait()
        if stopping or stop.asked():  # during the last call, evaluation or save
            raise Preempted(name, step, interrupted=stop.interrupted)
        return state


def evaluate(programs: StagePrograms, state: TrainState, frozen: PyTree, batches: Iterable[PyTree]) -> dict[str, Any]:
    """Values by name of the metrics of all batches, each of this process's rows."""
    parts = (
        programs.eval_step(state, mesh_lib.to_mesh(batch, programs.mesh), index, frozen)
        for index, batch in enumerate(batches)
    )
    return metrics.compute(metrics.merge(parts))


def _flops(programs: StagePrograms) -> Callable[[int], int | None]:
    """(step) → operations of that step, where the devices' peak is known to compare them with."""
    device = jax.devices()[0]
    if throughput.peak_flops(device.device_kind) is not None:
        return programs.step_flops
    if device.platform != "cpu":
        say(f"no MFU is reported: the peak of {device.device_kind!r} is not in train/throughput.py")
    return lambda step: None


def _on_devices(batches: Iterator[PyTree], mesh: Mesh, num: int, ahead: int = 2) -> Iterator[PyTree]:
    """Groups of `num` batches along a new leading axis, `ahead` of them on their way while the current one is used."""

    def groups():
        while group := list(itertools.islice(batches, num)):
            stacked = jax.tree.map(lambda *x: x[0][None] if num == 1 else np.stack(x), *group)
            yield mesh_lib.to_mesh(stacked, mesh, steps=True)

    items = groups()
    queue = collections.deque(itertools.islice(items, ahead))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(items, 1))
