"""FSDP, tensor parallelism and meshes over eight virtual devices."""

import dataclasses
import functools
import math
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent import prng
from binlatent.errors import UserError
from binlatent.mesh import MeshShape, by_process
from binlatent.nets.condition import Conditioning
from binlatent.train.compile import StagePrograms
from tests import tiny

BATCH = 16


def stages():
    """Stages with networks wide enough to be sharded, and a batch of each."""
    config = tiny.config(autoencoder__channels=64, prior__width=64)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (BATCH, 8), dtype=np.uint8)  # 4×4×4 bits
    prior = config_lib.build_prior_stage(config, (4, 4, 4), Conditioning()), {"code": codes}
    teacher = jax.tree.map(lambda x: x + 0.01, prior[0].init(prng.root(1), prior[1]).params["denoiser"])
    return {
        "autoencoder": (config_lib.build_autoencoder_stage(config), {"image": tiny.images(BATCH)}),
        "prior": prior,
        "student": (config_lib.build_student_stage(config, (4, 4, 4), Conditioning(), teacher), {"code": codes}),
    }


def run(stage, batch, mesh, steps=3):
    """The state after a few steps on a mesh, and the losses."""
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    programs = StagePrograms(stage, mesh, spec, key=prng.root(0))
    state, frozen, losses = programs.init(), programs.frozen(), []
    one = jax.tree.map(lambda x: x[None], batch)
    for _ in range(steps):
        state, values = programs.train_steps(state, mesh_lib.to_mesh(one, mesh, steps=True), frozen)
        losses.append(float(values["loss"][0]))
    return state, losses


@functools.cache
def alone(name):
    """The losses on one device."""
    return run(*stages()[name], MeshShape().build(jax.devices()[:1]))[1]


def share(tree, device) -> float:
    """The fraction of a tree's bytes on one device."""
    held = sum(s.data.nbytes for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == device)
    return held / sum(x.nbytes for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["autoencoder", "prior", "student"])
def test_fsdp_shards_the_state_and_keeps_the_loss(name):
    stage, batch = stages()[name]
    state, losses = run(stage, batch, MeshShape(data=1, fsdp=8).build())
    for part in (state.params, state.opt_state, state.ema):
        for device in jax.devices():
            # small arrays (biases, norms) are copied, so a little more than an eighth
            assert 1 / 8 <= share(part, device) < 0.16
    np.testing.assert_allclose(losses, alone(name), rtol=1e-5)
    assert losses[-1] != losses[0]


@pytest.mark.parametrize("shape", [pytest.param((4, 1, 2), marks=pytest.mark.slow), (2, 2, 2)])
def test_tensor_parallelism_keeps_the_loss(shape):
    stage, batch = stages()["prior"]
    data, fsdp, tensor = shape
    state, losses = run(stage, batch, MeshShape(data=data, fsdp=fsdp, tensor=tensor).build())
    for name in ("mlp_gate", "mlp_in"):
        kernel = state.params["denoiser"]["blocks"][name]["kernel"]
        assert kernel.sharding.spec == jax.P(None, "fsdp", "tensor")
        assert kernel.addressable_shards[0].data.shape == (2, 64 // fsdp, 192 // tensor)
    np.testing.assert_allclose(losses, alone("prior"), rtol=1e-5)


@pytest.mark.parametrize("shape", [pytest.param((1, 1, 8, 1), marks=pytest.mark.slow), (1, 2, 2, 2)])
def test_tokens_over_devices_keep_the_loss(shape):
    stage, batch = stages()["prior"]
    data, fsdp, context, tensor = shape
    _, losses = run(stage, batch, MeshShape(data=data, fsdp=fsdp, context=context, tensor=tensor).build())
    np.testing.assert_allclose(losses, alone("prior"), rtol=1e-5)


def test_tokens_that_cannot_be_divided_are_named():
    stage, batch = stages()["prior"]
    with pytest.raises(ValueError, match=r"16 tokens cannot be divided over the mesh's context=3"):
        run(stage, batch, MeshShape(data=1, context=3).build(jax.devices()[:3]))


MOVES = "all-gather|all-to-all|collective-permute"


def largest_collective(stage, batch, mesh, kinds=f"{MOVES}|all-reduce", *, num=256) -> int:
    """Numbers in the largest array that the compiled training step of `num` examples sends between devices."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((num, *x.shape[1:]), x.dtype), batch)
    text = StagePrograms(stage, mesh, shapes).train_steps.as_text()
    lines = re.findall(rf"= (.*) (?:{kinds})(?:-start)?\(", text)
    assert lines
    return max(math.prod(map(int, dims.split(","))) for line in lines for dims in re.findall(r"\w\[([\d,]+)\]", line))


@pytest.mark.parametrize(("name", "largest"), [("prior", 2 * 256 * 64), ("autoencoder", 3 * 3 * 64 * 64)])
def test_fsdp_sends_parameters_and_never_a_batch(name, largest):
    """Of the prior the largest is a matrix (64, 3·64) or all offsets, of the autoencoder a kernel; activations are
    (256·16 tokens, 64) and more."""
    stage, batch = stages()[name]
    assert largest_collective(stage, batch, MeshShape(data=1, fsdp=8).build()) <= largest


def test_tensor_parallel_attention_keeps_heads_in_their_place():
    """Tokens are summed over the axis, but no queries, keys and values are moved: nothing is larger than a matrix."""
    stage, batch = stages()["prior"]
    mesh = MeshShape(data=1, fsdp=2, tensor=4).build()
    stage = dataclasses.replace(stage, net=stage.net.clone(heads=4))
    assert largest_collective(stage, batch, mesh, MOVES) <= 2 * 256 * 64


def test_tokens_over_devices_send_keys_and_values_alone():
    """Of 16 examples, four on a device, the keys or values of 1,024 tokens of 64 numbers; nothing is moved elsewhere."""
    config = tiny.config(prior__width=64)
    stage = config_lib.build_prior_stage(config, (32, 32, 4), Conditioning())
    batch = {"code": jax.ShapeDtypeStruct((16, 512), np.uint8)}
    mesh = MeshShape(data=1, fsdp=4, context=2).build()
    assert largest_collective(stage, batch, mesh, num=16) == 4 * 1024 * 64
    assert largest_collective(stage, batch, mesh, "all-to-all|collective-permute", num=16) <= 256 * 64


def test_partition_spec_uses_the_largest_divisible_axis():
    mesh = MeshShape(data=1, fsdp=8).build()
    spec = lambda path, *shape: tuple(mesh_lib.partition_spec(path, shape, mesh))  # noqa: E731
    assert spec("params/kernel", 48, 100) == ("fsdp", None)  # 100 is larger and does not divide
    assert spec("params/kernel", 3, 3, 64, 128) == (None, None, None, "fsdp")
    assert spec("params/blocks/other", 4096, 6, 64) == (None, None, "fsdp")  # never the axis of layers
    assert spec("params/bias", 64) == ()
    assert spec("params/kernel", 33, 101) == ()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, "data=3, fsdp=1, context=1, tensor=1 does not fit 8 devices"),
        ({"data": -1, "fsdp": 3}, "fsdp=3, context=1, tensor=1 does not fit 8 devices"),
        ({"data": 2, "fsdp": 2}, "data=2, fsdp=2, context=1, tensor=1 does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 0}, "must be positive"),
    ],
)
def test_a_mesh_that_does_not_fit_is_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        MeshShape(**sizes).build()


def devices_of(processes, shape):
    found = np.empty(len(processes), object)
    found[:] = [SimpleNamespace(id=i, process_index=process) for i, process in enumerate(processes)]
    return found.reshape(shape)


def test_a_context_that_does_not_divide_the_tokens_is_named():
    config = tiny.config(mesh__data=1, mesh__context=3)
    with pytest.raises(
        UserError, match=r"mesh\.context=3 does not divide the 4×4 tokens of a code; set --config\.mesh"
    ):
        config_lib.build_mesh(config, jax.devices()[:3])
    assert config_lib.build_mesh(tiny.config(mesh__data=1, mesh__context=2), jax.devices()[:2]).shape["context"] == 2


def test_devices_are_in_the_order_of_their_processes():
    mesh = by_process(devices_of([0, 0, 1, 1, 1, 1, 0, 0], (2, 4, 1, 1)))
    assert [device.process_index for device in mesh.flat] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [device.id for device in mesh.flat] == [0, 1, 6, 7, 2, 3, 4, 5]
    pairs = by_process(devices_of([1, 1, 0, 0], (1, 2, 1, 2)))
    assert [device.id for device in pairs.flat] == [2, 3, 0, 1]  # devices of an example stay together


def test_an_example_stays_in_one_process():
    with pytest.raises(ValueError, match="context=1 × tensor=4 divide examples over several processes"):
        by_process(devices_of([0, 0, 1, 1], (1, 1, 1, 4)))
    with pytest.raises(ValueError, match="context=2 × tensor=1"):
        by_process(devices_of([0, 1, 2, 3], (2, 1, 2, 1)))
    mixed = by_process(devices_of([0, 1, 0, 1], (2, 1, 2, 1)))
    assert [device.id for device in mixed.flat] == [0, 2, 1, 3]


def test_an_indivisible_batch_size_is_named():
    mesh = MeshShape(data=2, fsdp=4).build()
    mesh_lib.check_batch_size(32, mesh, micro_batches=4)
    with pytest.raises(
        ValueError, match=r"batch size 24 is not divisible into 2 micro-batches over .* = 2 × 4 devices"
    ):
        mesh_lib.check_batch_size(24, mesh, micro_batches=2)


def test_gather_replicates_sharded_arrays():
    x = jax.device_put(np.arange(64.0), jax.NamedSharding(MeshShape(fsdp=8, data=1).build(), jax.P("fsdp")))
    here = mesh_lib.gather({"x": x}, MeshShape().build(jax.devices()[:2]))["x"]
    assert len(here.addressable_shards) == 2
    assert all((np.asarray(s.data) == np.arange(64)).all() for s in here.addressable_shards)


def test_programs_know_the_platform_of_the_mesh_that_they_are_traced_for():
    mesh = MeshShape().build()
    assert mesh_lib.platform() == "cpu"
    tpus = mesh.abstract_mesh.update(abstract_device=jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu"))
    with jax.sharding.use_abstract_mesh(tpus):
        assert mesh_lib.platform() == "tpu"
    seen = []

    @jax.jit
    def program(x):
        seen.append(jax.sharding.get_abstract_mesh().shape)
        return 2 * x

    ((count, found),) = mesh_lib.run_batches(program, 6, [lambda index: index], mesh=mesh, batch_size=6)
    assert count == 6 and found.tolist() == [0, 2, 4, 6, 8, 10, 10, 10]
    assert seen == [{"data": 8, "fsdp": 1, "context": 1, "tensor": 1}]
