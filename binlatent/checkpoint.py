"""Checkpoints: a train state and JSON metadata, written in the background by Orbax.

The metadata describe the run (seed, batch size, config, versions) and have a checksum of every array, because Orbax
restores corrupted files without an error. A checkpoint that does not restore is reported, and the one before it is used; when
training goes on, it is renamed to `<step>.broken`.
"""

import contextlib
import importlib.metadata
import itertools
import logging as stdlib_logging
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from binlatent.console import say, warn
from binlatent.errors import CheckpointError, UserError
from binlatent.files import digest
from binlatent.mesh import path_name
from binlatent.typing import PyTree

# Orbax divides the writing of a replicated array among its replicas, and compiles a program for each slice. For small arrays
# that takes longer than all else: with 150 of them on 8 devices, 7.6 s of a first save, against 0.1 s without.
SMALLEST_SLICE = 2**20  # bytes


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    return {name: importlib.metadata.version(name) for name in ("binlatent", "jax", "jaxlib", "flax", "optax", "numpy")}


@jax.jit
def _sums(leaves: list) -> list:
    def total(x):
        if x.dtype == bool:
            return x.sum(dtype=jnp.uint32)
        words = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize])
        return words.sum(dtype=jnp.uint32)

    return [total(x) for x in leaves]


def checksums(tree: PyTree) -> dict[str, int]:
    """The sum of every array's words modulo 2³², by path. It detects any single flipped bit, and is independent of sharding."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = jax.device_get(_sums([x for _, x in leaves]))
    return {path_name(path): int(s) for (path, _), s in zip(leaves, sums, strict=True)}


def _check(tree: PyTree, expected: dict[str, int]) -> None:
    for name, value in checksums(tree).items():
        if expected.get(name) != value:
            raise ValueError(f"array {name} has changed on disk: its checksum is {value}, not {expected.get(name)}")


class Checkpoints:
    """The checkpoints of one stage, in a local or remote folder.

    Args:
      folder: of the checkpoints; created if it is missing.
      keep: number of latest checkpoints to keep.
      keep_every: checkpoints at multiples of this step are kept forever; 0 for none.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int = 2, keep_every: int = 0):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

        logging.get_absl_logger().setLevel("CRITICAL")  # Orbax logs a dozen lines per save, and repeats failures
        handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SMALLEST_SLICE)
        ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)
        policy = [policies.LatestN(keep)] + ([policies.EveryNSteps(keep_every)] if keep_every else [])
        self.folder = epath.Path(os.path.abspath(folder) if "://" not in os.fspath(folder) else folder)
        self._ocp = ocp
        self._options = ocp.CheckpointManagerOptions(preservation_policy=policies.AnyPreservationPolicy(policy))
        self._open = self._manager()
        self._failed = False

    def _manager(self):
        class Manager(self._ocp.CheckpointManager):
            def reached_preemption(self, step: int) -> bool:
                """Disabled: the training loop does this by call; by step, processes could wait for different steps."""
                return False

        return Manager(self.folder, options=self._options)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in ascending order."""
        return sorted(self._open.all_steps())

    def save(self, step: int, state: PyTree, metadata: dict[str, Any]) -> None:
        """Starts saving; returns when the arrays have been copied from the devices.

        Raises:
          CheckpointError: this checkpoint, or the previous one, could not be written.
        """
        ocp = self._ocp
        item = ocp.args.Composite(
            state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata | {"checksums": checksums(state)})
        )
        with self._explained():
            self._check_place(step)
            if not self._open.save(step, args=item, force=True):
                raise UserError(f"the checkpoint of step {step} was rejected: {self.folder} has {self.steps()}")

    def _check_place(self, step: int) -> None:
        """Makes and removes a folder beside the checkpoint's: where Orbax cannot, its threads wait for ten minutes for what
        will not come, and the process with them at its exit."""
        if jax.process_index() == 0 and "://" not in os.fspath(self.folder):
            place = self.folder / f"{step}.test"
            place.mkdir(parents=True, exist_ok=True)
            place.rmdir()

    def wait(self) -> None:
        """Waits until everything is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        with self._explained():
            self._open.wait_until_finished()

    def close(self) -> None:
        # after a failure, closing fails as well, and must not hide it; a save that fails only now is explained
        with contextlib.suppress(Exception) if self._failed else self._explained():
            self._open.close()

    @contextlib.contextmanager
    def _explained(self):
        """Turns a failed write into an error that says which checkpoints remain and what to do."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._failed = True
            stdlib_logging.getLogger("asyncio").setLevel("CRITICAL")  # a traceback for each of the other arrays
            raise CheckpointError(
                f"a checkpoint could not be written to {self.folder}: {_first_line(error)}. Checkpoints on disk: "
                f"{self.steps() or 'none'}. Free space or correct the path, then run the same command again to resume."
            ) from error

    def restore(self, abstract: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """Restores the latest intact checkpoint with the shapes and shardings of `abstract`; None if there is none.

        Raises:
          UserError: there are checkpoints, but none restores.
        """
        steps, failures = self.steps(), []
        for step in reversed(steps):
            try:
                state, metadata = self._read(step, abstract)
                _check(state, metadata["checksums"])
            except Exception as error:  # Orbax raises many types, even bare Exception
                failures.append(f"step {step}: {_first_line(error)}")
                warn(f"the checkpoint of step {step} in {self.folder} does not restore: {_first_line(error)}")
                continue
            self._set_aside([s for s in steps if s > step])
            return state, dict(metadata)
        if failures:
            raise UserError(_none_restores(self.folder, failures))
        return None

    def _read(self, step: int, abstract: PyTree):
        """The arrays and metadata of a step, unchecked. Every process must call it, and where one of them fails, all do:
        the checksums that follow are collective, and of the same step on every process."""
        ocp, found, failure = self._ocp, None, None
        try:  # by the handlers, as a restore of the manager waits for processes that have failed
            state = ocp.StandardCheckpointHandler().restore(
                self.folder / str(step) / "state", args=ocp.args.StandardRestore(abstract)
            )
            found = state, ocp.JsonCheckpointHandler().restore(self.folder / str(step) / "metadata")
        except Exception as error:  # Orbax raises many types, even bare Exception
            failure = error
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            failed = multihost_utils.process_allgather(np.int32(failure is not None))  # Gloo cannot gather booleans
            if failed.any() and failure is None:
                failure = CheckpointError(f"process {failed.argmax()} cannot read its part")
        if failure is not None:
            raise failure
        return found

    def _set_aside(self, broken: list[int]) -> None:
        """Renames broken checkpoints, so that their steps can be saved again and no data are lost."""
        if not broken:
            return
        self._open.close()
        if jax.process_index() == 0:
            for step in broken:
                # the same step may have been broken before
                names = (f"{step}.broken{number or ''}" for number in itertools.count())
                place = next(self.folder / name for name in names if not (self.folder / name).exists())
                (self.folder / str(step)).rename(place)
                say(f"  set aside as {place}")
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("set aside")
        self._open = self._manager()


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(" See full TensorStore")[0]
    return line if len(line) <= 300 else f"{line[:299]}…"


def _none_restores(folder: epath.PathLike, failures: list[str]) -> str:
    return (
        f"no checkpoint in {folder} restores:\n  "
        + "\n  ".join(failures)
        + "\nIf the configuration has changed, use another "
        "work directory; otherwise move the folder away to start this stage again."
    )


def checkpoint_steps(folder: epath.PathLike) -> list[int]:
    """Steps that have a finished checkpoint in a folder, in ascending order, without opening it.

    On a local disk, an unfinished checkpoint has a temporary name. In an object store, it has its final name, but lacks
    Orbax's `commit_success.txt`.
    """
    import orbax.checkpoint as ocp

    folder = epath.Path(folder)
    if not folder.exists():
        return []
    return sorted(checkpoint.step for checkpoint in ocp.path.step.standard_name_format().find_all(folder))


def load_ema(folder: epath.PathLike, sharding=None) -> tuple[int, PyTree, dict[str, Any]]:
    """Loads the EMA parameters of the latest intact checkpoint: (step, parameters, metadata). Needs no model code.

    Args:
      folder: a stage's `checkpoints`.
      sharding: of the parameters; None for the default device.

    Raises:
      UserError: there is no checkpoint, or none restores.
    """
    step, parts, metadata = load_parts(folder, ("ema",), sharding)
    return step, parts["ema"], metadata


def load_parts(
    folder: epath.PathLike, names: tuple[str, ...], sharding=None
) -> tuple[int, dict[str, PyTree], dict[str, Any]]:
    """Like `load_ema`, for the named fields of the train state, such as `ema` and `extra`. A field without arrays is {}."""
    import orbax.checkpoint as ocp

    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    logging.get_absl_logger().setLevel("ERROR")
    failures = []
    for step in reversed(checkpoint_steps(folder)):
        path = epath.Path(os.path.abspath(folder) if "://" not in os.fspath(folder) else folder) / str(step)
        try:
            with ocp.PyTreeCheckpointer() as reader, ocp.Checkpointer(ocp.JsonCheckpointHandler()) as json_reader:
                stored = reader.metadata(path / "state").item_metadata
                leaves = {name: stored[name] for name in names if name in stored and jax.tree.leaves(stored[name])}
                target = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding), leaves)
                options = ocp.checkpoint_utils.construct_restore_args(target)
                args = ocp.args.PyTreeRestore(target, restore_args=options, partial_restore=True)
                parts = reader.restore(path / "state", args=args)
                metadata = json_reader.restore(path / "metadata")
            _check(parts, metadata["checksums"])
            return step, {name: {} for name in names} | parts, metadata
        except Exception as error:  # Orbax raises many types, even bare Exception
            failures.append(f"step {step}: {_first_line(error)}")
            warn(f"the checkpoint of step {step} in {folder} does not restore: {_first_line(error)}")
    if failures:
        raise UserError(_none_restores(folder, failures))
    raise UserError(f"no checkpoint in {folder}: train this stage first (`binlatent run` or `binlatent train`)")


def fingerprint(params: PyTree) -> str:
    """A short hash of parameters (names, shapes, types and values), by which codes refer to their autoencoder."""
    leaves = sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda leaf: path_name(leaf[0]))
    return digest(*(part for path, x in leaves for part in (path_name(path), np.asarray(x))))
