"""The compiled programs of a stage on a mesh.

There is no other training step: the loop runs these programs, `plan` and `bench` compile them from shapes alone, and
`step_flops` counts the operations of the same function.
"""

import dataclasses
import functools
import os

import jax
from etils import epath
from jax.sharding import Mesh

from binlatent import mesh as mesh_lib
from binlatent import prng
from binlatent.mesh import on_mesh
from binlatent.train.stage import Stage
from binlatent.train.state import TrainState
from binlatent.train.throughput import count_flops
from binlatent.typing import PRNGKey, PyTree


def keep_programs(folder: epath.PathLike) -> None:
    """Has compiled programs kept in a folder, local or remote, where a run that resumes finds them: on TPUs, they take minutes.

    To be called before anything is compiled. It changes nothing on CPUs, or where JAX_COMPILATION_CACHE_DIR names a folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and jax.default_backend() != "cpu":
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder))


class StagePrograms:
    """A stage's programs on a mesh, each compiled when it is first asked for.

    Args:
      stage: the stage.
      mesh: the mesh that it is compiled for.
      batch_spec: shapes (b, …) and types of a global training batch.
      key: the root key of the run.
      steps_per_call: optimizer steps per call of `train_steps`.
    """

    def __init__(
        self, stage: Stage, mesh: Mesh, batch_spec: PyTree, *, key: PRNGKey | None = None, steps_per_call: int = 1
    ):
        self.stage, self.mesh, self.batch_spec, self.steps_per_call = stage, mesh, batch_spec, steps_per_call
        self.key = prng.root(0) if key is None else key
        self._flops: dict[bool, int] = {}  # of early steps, and of those of the whole stage

    @functools.cached_property
    def state_spec(self) -> TrainState:
        """Shapes, types and shardings of the state."""
        shapes = jax.eval_shape(lambda key: self.stage.init(key, self.batch_spec), self.key)
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes,
            mesh_lib.state_shardings(shapes, self.mesh),
        )

    @property
    def shardings(self) -> TrainState:
        """The sharding of each array of the state."""
        return jax.tree.map(lambda x: x.sharding, self.state_spec)

    def init(self) -> TrainState:
        """A fresh state, created with its shardings."""
        init = jax.jit(lambda key: self.stage.init(key, self.batch_spec), out_shardings=self.shardings)
        return init(prng.stream(self.key, "init"))

    def frozen(self) -> PyTree:
        """The stage's frozen weights, replicated, as an argument of the programs."""
        return jax.device_put(self.stage.frozen, mesh_lib.replicated(self.mesh))

    @functools.cached_property
    def train_steps(self) -> jax.stages.Compiled:
        """(state, batches, frozen) → (state, metrics). Batches are (steps, b, …), metrics (steps,); the state is donated.

        Compiled from shapes alone, so that what it needs is known before there is a state.
        """
        return self.lower_train_steps().compile()

    @functools.cached_property
    def _early_steps(self) -> jax.stages.Compiled:
        return self._lower(self.stage.early()).compile()

    def train_steps_from(self, step: int) -> jax.stages.Compiled:
        """The program of the call that begins at a step: `train_steps`, or before all of the stage has an effect, a cheaper
        one that gives the same states. It depends on the step alone, so a resumed run takes the same one."""
        early = step + self.steps_per_call <= self.stage.complete_from
        return self._early_steps if early else self.train_steps

    def lower_train_steps(self) -> jax.stages.Lowered:
        """`train_steps` before compilation."""
        return self._lower(self.stage)

    def _lower(self, stage: Stage) -> jax.stages.Lowered:
        replicated = mesh_lib.replicated(self.mesh)
        steps = jax.jit(
            on_mesh(functools.partial(_train_steps, stage, self.key, self.steps_per_call), self.mesh),
            in_shardings=(self.shardings, mesh_lib.batch_sharding(self.mesh, steps=True), replicated),
            out_shardings=(self.shardings, replicated),
            donate_argnums=0,
        )
        return steps.lower(*self.train_spec())

    @functools.cached_property
    def eval_step(self):
        """(state, batch, batch index, frozen) → mergeable metrics."""
        replicated = mesh_lib.replicated(self.mesh)

        def step(state, batch, index, frozen):
            return _with(self.stage, frozen).eval_step(state, batch, prng.stream(self.key, "evaluate", index))

        return jax.jit(
            on_mesh(step, self.mesh),
            in_shardings=(self.shardings, mesh_lib.batch_sharding(self.mesh), None, replicated),
            out_shardings=replicated,
        )

    def train_spec(self) -> tuple[TrainState, PyTree, PyTree]:
        """Shapes of the arguments of `train_steps`."""
        steps = self.steps_per_call
        batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((steps, *x.shape), x.dtype), self.batch_spec)
        return self.state_spec, batches, _shapes(self.stage.frozen)

    def step_flops(self, step: int | None = None) -> int:
        """Operations of a training step over all devices, without recomputation (`remat`), as MFU is defined; None: of a
        step that needs all of the stage."""
        early = step is not None and step < self.stage.complete_from
        if early not in self._flops:
            self._flops[early] = self._count_flops(self.stage.early() if early else self.stage)
        return self._flops[early]

    def _count_flops(self, stage: Stage) -> int:
        net = stage.net
        if "remat" in {field.name for field in dataclasses.fields(net)}:
            stage = dataclasses.replace(stage, net=net.clone(remat="none"))
        one = StagePrograms(stage, self.mesh, self.batch_spec, key=self.key)
        return count_flops(functools.partial(_train_steps, stage, self.key, 1), *map(_shapes, one.train_spec()))


def _train_steps(stage: Stage, key: PRNGKey, num: int, state: TrainState, batches: PyTree, frozen: PyTree):
    """`num` steps; batches and metrics have a leading axis of steps."""
    stage = _with(stage, frozen)

    def step(state, batch):
        return stage.train_step(state, batch, prng.stream(key, "train", state.step))

    if num > 1:
        return jax.lax.scan(step, state, batches)
    # no loop for one step: on CPUs, a convolution inside a loop takes ten times as long
    state, values = step(state, jax.tree.map(lambda x: x[0], batches))
    return state, jax.tree.map(lambda x: x[None], values)


def _with(stage: Stage, frozen: PyTree) -> Stage:
    return dataclasses.replace(stage, frozen=frozen)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
