"""The only training loop. It knows neither autoencoders nor diffusion.

The order of a step is fixed: evaluate, save, take a batch, step. Evaluation and saving therefore see the state after
`step` steps, and a run that resumes from that state takes the same batch next. The last pass only evaluates and saves.
"""

import collections
import dataclasses
import itertools
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from binlatent import prng
from binlatent.errors import UserError
from binlatent.train import metrics as metrics_lib
from binlatent.train import sharding, throughput
from binlatent.train.checkpoint import Checkpoints
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
    micro_batches: int = 1
    log_every: int = 50
    evaluate_every: int = 1000
    evaluate_batches: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    keep_every: int = 0
    on_nonfinite: str = "stop"

    def __post_init__(self):
        for name in ("num_steps", "batch_size", "micro_batches", "log_every", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is expected")
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


class Preempted(Exception):
    """The run was asked to end; its state is saved."""


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
    about: dict[str, Any],
    hooks: Hooks | None = None,
) -> TrainState:
    """Trains a stage to its last step, from its latest checkpoint where there is one.

    Args:
      name: of the stage, for people.
      train_batches: (step) → this process's rows of the batches from that step on.
      eval_batches: () → this process's rows of the validation batches, with a `mask`.
      folder: of the stage: `checkpoints`, `metrics.jsonl`, TensorBoard events and `previews` go there.
      about: kept beside the state in every checkpoint.

    Raises:
      UserError: the loss is not finite, or a checkpoint can be neither read nor written.
      Preempted: the process got SIGTERM, or the cluster takes its machines; the state is saved.
    """
    hooks = hooks or Hooks()
    sharding.check_batch_size(training.batch_size, mesh, training.micro_batches)
    folder = epath.Path(folder)
    checkpoints = Checkpoints(
        folder / "checkpoints", keep=training.keep_checkpoints, keep_every=training.keep_every
    )
    key = prng.root(seed)
    batch_spec = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((training.batch_size, *x.shape[1:]), x.dtype), next(iter(train_batches(0)))
    )
    init = lambda k: stage.init(k, batch_spec)  # noqa: E731
    abstract = jax.eval_shape(init, key)
    shardings = sharding.state_shardings(abstract, mesh)
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
            if saved[what] != about[what]:
                raise UserError(
                    f"{name}: the checkpoint in {folder} was made with {what} {saved[what]}, this run asks for "
                    f"{about[what]}: data order and noise would not continue. Use the same {what} or another work directory."
                )
    start = int(state.step)
    if start >= training.num_steps:
        checkpoints.close()
        return state

    batch_sharding, same = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    # Frozen weights are an argument: as constants they would be copied into the text of every program.
    frozen = jax.device_put(getattr(stage, "frozen", {}), same)

    def with_weights(frozen) -> Stage:
        return dataclasses.replace(stage, frozen=frozen) if frozen else stage

    train_step = jax.jit(
        lambda state, batch, frozen: with_weights(frozen).train_step(state, batch, prng.stream(key, "train", state.step)),
        in_shardings=(shardings, batch_sharding, same),
        out_shardings=(shardings, same),
        donate_argnums=0,
    )
    eval_step = jax.jit(
        lambda state, batch, index, frozen: with_weights(frozen).eval_step(
            state, batch, prng.stream(key, "evaluate", index)
        ),
        in_shardings=(shardings, batch_sharding, None, same),
        out_shardings=same,
    )
    writer = metrics_lib.MetricWriter(folder, start)
    progress = _Progress(name, start, training)
    stop = _StopRequest(checkpoints)
    batches = _prefetch((sharding.to_mesh(b, mesh) for b in train_batches(start)), 2)
    window = throughput.Window(training.batch_size, _flops(stage, abstract, batch_spec))
    watchdog = Watchdog(name)
    pending, tracing = None, False

    def finish(step, values):
        """Reads the metrics of a finished step: one step late, so that the device never waits for the host."""
        values = {k: float(v) for k, v in jax.device_get(values).items()}
        if not values["finite"] and training.on_nonfinite == "stop":
            checkpoints.save(step, state, about)
            checkpoints.wait()
            raise UserError(
                f"{name}: the loss or its gradient is not finite at step {step} (loss {values['loss']}). The state before "
                f"that step is saved in {checkpoints.folder}. Lower the learning rate, or set on_nonfinite to 'skip'."
            )
        window.add(values)
        if step % training.log_every == 0 or step == training.num_steps:
            record = window.flush()
            writer.write(step, record, "train")
            progress.show(step, record)

    try:
        for step in range(start, training.num_steps + 1):
            last = step == training.num_steps
            if pending is not None and (last or step % training.evaluate_every == 0 or step % training.checkpoint_every == 0):
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
                checkpoints.save(step, state, about)
                window.pause()
            if last:
                break
            if asked:
                checkpoints.wait()
                raise Preempted(f"{name}: stopped at step {step} as asked; its state is saved, run again to resume")

            if hooks.profile and step == hooks.profile[0]:
                jax.profiler.start_trace(str(folder / "profile"))
                tracing = True
            watchdog.beat(step)
            waited = time.perf_counter()
            batch = next(batches)
            window.waited += time.perf_counter() - waited
            state, values = train_step(state, batch, frozen)
            if tracing and step >= hooks.profile[1]:
                jax.block_until_ready(state)
                jax.profiler.stop_trace()
                tracing = False
            if pending is not None:
                finish(*pending)
            pending = (step + 1, values)
            progress.move(step + 1)
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
        eval_step(sharding.to_mesh(batch, mesh), index)
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


def _prefetch(items: Iterator, size: int) -> Iterator:
    """Keeps `size` batches on their way to the devices while the current one is used."""
    queue = collections.deque(itertools.islice(items, size))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(items, 1))


class _Progress:
    """A progress bar with rate and time left, on process 0."""

    def __init__(self, name: str, start: int, training: Training):
        import tqdm

        self._bar = tqdm.tqdm(
            total=training.num_steps, initial=start, desc=name, unit="step", dynamic_ncols=True, mininterval=1.0,
            disable=jax.process_index() != 0,
        )  # fmt: skip

    def move(self, step: int) -> None:
        self._bar.update(step - self._bar.n)

    def show(self, step: int, values: dict[str, float]) -> None:
        self._bar.set_postfix_str(f"loss {values['loss']:.4f}", refresh=False)

    def say(self, step: int, values: dict[str, Any], warnings: list[str]) -> None:
        scalars = (f"{name} {value:.4g}" for name, value in values.items() if not isinstance(value, list))
        if not self._bar.disable:
            self._bar.write(f"step {step}: " + ", ".join(scalars))
            for warning in warnings:
                self._bar.write(f"warning: {warning}")

    def close(self) -> None:
        self._bar.close()


class _StopRequest:
    """Whether the run has been asked to end: SIGTERM on one process, the cluster's notice on many.

    Under `jax.distributed` the runtime catches SIGTERM itself and tells every process the same step.
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self._distributed = jax.distributed.is_initialized()
        self._asked = False
        self._previous = None
        if not self._distributed:
            try:
                self._previous = signal.signal(signal.SIGTERM, self._ask)
            except ValueError:  # not the main thread (a notebook's worker): there is nothing to catch
                self._previous = None

    def _ask(self, *_):
        self._asked = True

    def asked(self, step: int) -> bool:
        return self._checkpoints.reached_preemption(step) if self._distributed else self._asked

    def close(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
