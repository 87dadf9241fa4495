"""The only training loop. It knows neither autoencoders nor diffusion.

The order of a step is fixed: evaluate, save, take a batch, step. Evaluation and saving therefore see the state after
`step` steps, and a run that resumes from that state takes the same batch next. The last pass only evaluates and saves.
"""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from binlatent import mesh as mesh_lib
from binlatent import prng
from binlatent.checkpoint import Checkpoints
from binlatent.errors import UserError
from binlatent.mesh import on_mesh
from binlatent.train import metrics as metrics_lib
from binlatent.train import throughput
from binlatent.train.preemption import Preempted, StopRequest
from binlatent.train.progress import Progress
from binlatent.train.state import TrainState
from binlatent.train.watchdog import Watchdog
from binlatent.typing import Array, PRNGKey, PyTree

ON_NONFINITE = ("stop", "skip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How long a stage runs, and what it does on the way.

    Attributes:
      num_steps: optimizer steps.
      batch_size: examples of a step, over all devices and processes.
      steps_per_call: steps of one call of the compiled program, which saves the host's time where steps are short; it
        must divide the number of steps and of those between evaluations and checkpoints.
      micro_batches: the batch is taken in so many parts, to save memory; the result is the same.
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
        for name in (*several, "batch_size", "steps_per_call", "micro_batches", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is expected")
        for name in several:
            if getattr(self, name) % self.steps_per_call:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: a multiple of steps_per_call {self.steps_per_call} is expected"
                )
        if self.on_nonfinite not in ON_NONFINITE:
            raise ValueError(f"on_nonfinite is {self.on_nonfinite!r}: one of {', '.join(ON_NONFINITE)} is expected")


@runtime_checkable
class Stage(Protocol):
    """What the loop trains.

    A stage that reads weights which it does not train is a dataclass that holds them in a field `frozen`.
    """

    def init(self, key: PRNGKey, batch: PyTree) -> TrainState: ...

    def train_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> tuple[TrainState, dict[str, Array]]:
        """One step; its metrics are scalars, `loss` among them."""
        ...

    def eval_step(self, state: TrainState, batch: PyTree, key: PRNGKey) -> dict[str, Any]:
        """Mergeable metrics of a batch, whose `mask` is False for padding."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a caller may add to a run.

    Attributes:
      preview: (state, step) → a picture (h, w, c) uint8 of the state, saved at every evaluation.
      warnings: (values of an evaluation) → what a person should be told about them; printed, and their number is logged.
      initial: called on a fresh state (not on a resumed one), to start from other parameters.
      profile: (first, last) steps to trace into `<folder>/profile`.
    """

    preview: Callable[[TrainState, int], np.ndarray] | None = None
    warnings: Callable[[dict[str, Any]], list[str]] | None = None
    initial: Callable[[TrainState], TrainState] | None = None
    profile: tuple[int, int] | None = None


def train(
    stage: Stage,
    *,
    name: str,
    training: Training,
    train_batches: Callable[[int], Iterator[PyTree]],
    eval_batches: Callable[[], Iterable[PyTree]],
    mesh: Mesh,
    seed: int,
    folder: epath.PathLike,
    metadata: dict[str, Any],
    hooks: Hooks | None = None,
) -> TrainState:
    """Trains a stage to its last step, from its latest checkpoint where there is one.

    Args:
      name: of the stage, for people.
      train_batches: (step) → this process's rows of the batches from that step on.
      eval_batches: () → this process's rows of the validation batches, with a `mask`.
      folder: of the stage: `checkpoints`, `metrics.jsonl`, TensorBoard events and `previews` go there.
      metadata: kept beside the state in every checkpoint.

    Raises:
      UserError: the loss is not finite, or a checkpoint can be neither read nor written.
      Preempted: the process got SIGTERM, or the cluster takes its machines; the state is saved.
    """
    hooks = hooks or Hooks()
    mesh_lib.check_batch_size(training.batch_size, mesh, training.micro_batches)
    folder = epath.Path(folder)
    checkpoints = Checkpoints(folder / "checkpoints", keep=training.keep_checkpoints, keep_every=training.keep_every)
    key = prng.root(seed)
    batch_spec = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((training.batch_size, *x.shape[1:]), x.dtype), next(iter(train_batches(0)))
    )
    init = lambda k: stage.init(k, batch_spec)  # noqa: E731
    abstract = jax.eval_shape(init, key)
    shardings = mesh_lib.state_shardings(abstract, mesh)
    restored = checkpoints.restore(
        jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    )
    if restored is None:
        state = jax.jit(init, out_shardings=shardings)(prng.stream(key, "init"))
        if hooks.initial is not None:
            state = jax.device_put(hooks.initial(state), shardings)
    else:
        state, saved = restored
        for what in ("seed", "batch_size"):
            if saved[what] != metadata[what]:
                raise UserError(
                    f"{name}: the checkpoint in {folder} was made with {what} {saved[what]}, this run asks for "
                    f"{metadata[what]}: data order and noise would not continue. Use the same {what} or another work directory."
                )
    start, per_call = int(state.step), training.steps_per_call
    if start % per_call:
        raise UserError(
            f"{name}: the checkpoint in {folder} is of step {start}, which is no multiple of steps_per_call {per_call}; "
            "go on with a number that divides it"
        )
    if start >= training.num_steps:
        checkpoints.close()
        return state

    batch_sharding, same = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
    # Frozen weights are an argument: as constants they would be copied into the text of every program.
    frozen = jax.device_put(getattr(stage, "frozen", {}), same)

    def with_weights(frozen) -> Stage:
        return dataclasses.replace(stage, frozen=frozen) if frozen else stage

    def train_steps(state, batches, frozen):
        """The steps of one call; batches and metrics have a leading axis of steps."""

        def step(state, batch):
            return with_weights(frozen).train_step(state, batch, prng.stream(key, "train", state.step))

        if per_call > 1:
            return jax.lax.scan(step, state, batches)
        # not a loop of one: on CPUs a convolution inside a loop takes ten times as long
        state, values = step(state, jax.tree.map(lambda x: x[0], batches))
        return state, jax.tree.map(lambda x: x[None], values)

    train_steps = jax.jit(
        on_mesh(train_steps, mesh),
        in_shardings=(shardings, mesh_lib.batch_sharding(mesh, steps=True), same),
        out_shardings=(shardings, same),
        donate_argnums=0,
    )

    def eval_step(state, batch, index, frozen):
        return with_weights(frozen).eval_step(state, batch, prng.stream(key, "evaluate", index))

    eval_step = jax.jit(
        on_mesh(eval_step, mesh),
        in_shardings=(shardings, batch_sharding, None, same),
        out_shardings=same,
    )
    writer = metrics_lib.MetricWriter(folder, start)
    progress = Progress(name, start, training.num_steps)
    stop = StopRequest(checkpoints)
    batches = _prefetch((mesh_lib.to_mesh(b, mesh, steps=True) for b in _stacked(train_batches(start), per_call)), 2)
    window = throughput.Window(training.batch_size, _flops(stage, abstract, batch_spec))
    watchdog = Watchdog(name)
    pending, tracing = None, False

    def finish(step, stacked):
        """Reads the metrics of a finished call: one call late, so that the device never waits for the host."""
        stacked = jax.device_get(stacked)
        for i in range(per_call):
            finish_step(step - per_call + 1 + i, {k: float(v[i]) for k, v in stacked.items()})

    def finish_step(step, values):
        if not values["finite"] and training.on_nonfinite == "stop":
            at = int(state.step)
            checkpoints.save(at, state, metadata)
            checkpoints.wait()
            raise UserError(
                f"{name}: the loss or its gradient is not finite at step {step} (loss {values['loss']}). The state without "
                f"that step is saved in {checkpoints.folder}. Lower the learning rate, or set on_nonfinite to 'skip'."
            )
        window.add(values)
        if step % training.log_every == 0 or step == training.num_steps:
            record = window.flush()
            writer.write(step, record, "train")
            progress.show(step, record)

    try:
        for step in range(start, training.num_steps + 1, per_call):
            last = step == training.num_steps
            if pending is not None and (
                last or step % training.evaluate_every == 0 or step % training.checkpoint_every == 0
            ):
                finish(*pending)
                pending = None
            if step > start and (last or step % training.evaluate_every == 0):
                watchdog.pause()
                values = _evaluate(
                    lambda batch, index, state=state: eval_step(state, batch, index, frozen),
                    eval_batches(), mesh, training.evaluate_batches,
                )  # fmt: skip
                said = hooks.warnings(values) if hooks.warnings else []
                writer.write(step, values | {"warnings": len(said)}, "validation")
                progress.say(step, values, said)
                if hooks.preview is not None:
                    writer.write_image(step, name, hooks.preview(state, step))
                window.pause()
            asked = stop.asked(step)
            if step > start and (last or asked or step % training.checkpoint_every == 0):
                watchdog.pause()
                checkpoints.save(step, state, metadata)
                window.pause()
            if last:
                break
            if asked:
                checkpoints.wait()
                raise Preempted(f"{name}: stopped at step {step} as asked; its state is saved, run again to resume")

            if hooks.profile and step <= hooks.profile[0] < step + per_call:
                jax.profiler.start_trace(str(folder / "profile"))
                tracing = True
            watchdog.beat(step)
            waited = time.perf_counter()
            batch = next(batches)
            window.waited += time.perf_counter() - waited
            state, values = train_steps(state, batch, frozen)
            if tracing and step + per_call > hooks.profile[1]:
                jax.block_until_ready(state)
                jax.profiler.stop_trace()
                tracing = False
            if pending is not None:
                finish(*pending)
            pending = (step + per_call, values)
            progress.move(step + per_call)
        checkpoints.wait()
        return state
    finally:
        if tracing:  # the run ended before the last of the steps to trace
            jax.profiler.stop_trace()
        watchdog.close()
        stop.close()
        progress.close()
        writer.close()
        checkpoints.close()


def _evaluate(eval_step, batches: Iterable[PyTree], mesh: Mesh, limit: int) -> dict[str, Any]:
    parts = (
        eval_step(mesh_lib.to_mesh(batch, mesh), index)
        for index, batch in enumerate(itertools.islice(batches, limit or None))
    )
    return metrics_lib.compute(metrics_lib.merge(parts))


def _flops(stage: Stage, abstract: TrainState, batch_spec: PyTree) -> int | None:
    """Operations of a step, where the devices' peak is known to compare them with."""
    device = jax.devices()[0]
    if throughput.peak_flops(device.device_kind) is None:
        if device.platform != "cpu" and jax.process_index() == 0:
            print(f"no MFU is reported: the peak of {device.device_kind!r} is not in train/throughput.py")
        return None
    return throughput.step_flops(stage, abstract, batch_spec)


def _stacked(batches: Iterator[PyTree], num: int) -> Iterator[PyTree]:
    """Batches in groups of `num`, along a new leading axis."""
    while group := list(itertools.islice(batches, num)):
        yield jax.tree.map(lambda *x: x[0][None] if num == 1 else np.stack(x), *group)


def _prefetch(items: Iterator, size: int) -> Iterator:
    """Keeps `size` batches on their way to the devices while the current one is used."""
    queue = collections.deque(itertools.islice(items, size))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(items, 1))
