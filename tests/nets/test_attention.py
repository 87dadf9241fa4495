"""Kernels of attention against XLA's own, which writes all scores; the TPU's in Pallas' interpreter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.mesh import MeshShape, batch_sharding, on_mesh
from binlatent.nets import attention
from binlatent.nets.attention import attend, chunked, splash

DISPATCH = (functools.partial(splash, interpret=True), functools.partial(chunked, size=64))


def arrays(length, keys, *, b=2, heads=2, d=32, masked=True):
    """Queries, keys, values, a mask under which every example has another number of keys, and a gradient."""
    q, k, v, g = (
        jax.random.normal(jax.random.key(i), (b, n, heads, d)) for i, n in enumerate((length, keys, keys, length))
    )
    mask = jnp.arange(keys)[None] < jnp.linspace(1, keys - 1, b).astype(int)[:, None] if masked else None
    return (q, k, v), mask, g


def values(function, given, mask, g):
    """The result, and the gradients of all arrays."""
    result, pull = jax.vjp(lambda *given: function(*given, mask), *given)
    return [np.asarray(x) for x in (result, *pull(g))]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("function", DISPATCH, ids=["splash", "chunked"])
def test_a_kernel_equals_attention_that_writes_its_scores(function, masked):
    given, mask, g = arrays(256, 128, masked=masked)
    expected = values(attention.plain, given, mask, g)
    for ours, theirs in zip(values(function, given, mask, g), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    if masked:  # it must have an effect
        assert np.abs(expected[0] - np.asarray(attention.plain(*given, None))).max() > 0.1


@pytest.mark.parametrize("shape", [(2, 2, 1, 2), (1, 2, 2, 2)])
def test_the_kernel_of_tpus_runs_on_each_device_s_examples_heads_and_queries(shape):
    data, fsdp, context, tensor = shape
    given, mask, g = arrays(128 * context, 128, b=4)
    mesh = MeshShape(data=data, fsdp=fsdp, context=context, tensor=tensor).build()
    function = on_mesh(lambda *a: attention._over_devices(DISPATCH[0], *a, "tensor"), mesh)
    expected = values(attention.plain, given, mask, g)
    placed = [jax.device_put(x, batch_sharding(mesh)) for x in (*given, mask, g)]
    found = jax.jit(lambda q, k, v, mask, g: values_on(function, (q, k, v), mask, g))(*placed)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert found[0].sharding.shard_shape(found[0].shape)[1:3] == (128, 1)  # queries, and one of two heads


def values_on(function, given, mask, g):
    result, pull = jax.vjp(lambda *given: function(*given, mask), *given)
    return result, *pull(g)


def primitives(length, keys=None, *, platform="cpu", b=8, mesh=True):
    """The primitives of attention as it is traced for a mesh of eight devices, or without one."""
    shapes = [jax.ShapeDtypeStruct((b, n, 2, 32), jnp.bfloat16) for n in (length, keys or length, keys or length)]
    text = lambda: str(jax.make_jaxpr(attend)(*shapes))  # noqa: E731
    if not mesh:
        return text()
    abstract = MeshShape().build().abstract_mesh
    if platform != "cpu":
        device = jax.sharding.AbstractDevice("TPU v5 lite", 1, platform)
        abstract = abstract.update(abstract_device=device)
    with jax.sharding.use_abstract_mesh(abstract):
        return text()


def test_the_kernel_is_that_of_the_mesh_and_of_the_number_of_tokens():
    assert "pallas_call" in primitives(1024, platform="tpu") and "shard_map" in primitives(1024, platform="tpu")
    assert "pallas_call" in primitives(4096, 256, platform="tpu")
    assert "scan" in primitives(1024) and "pallas_call" not in primitives(1024)
    plain = primitives(1024, mesh=False)  # as an exported function is traced
    assert "pallas_call" not in plain and "scan" not in plain
    for where in ("tpu", "cpu"):
        short = primitives(512, platform=where)
        assert "pallas_call" not in short and "scan" not in short
    # numbers of tokens and of examples that cannot be divided as the kernel does
    for length, b in ((1100, 8), (1024, 4)):
        assert "pallas_call" not in primitives(length, platform="tpu", b=b)


@pytest.mark.parametrize(("length", "scans"), [(1024, True), (64, False)])
def test_queries_divided_over_devices_meet_all_keys(length, scans):
    """In chunks where there are many, else with all scores; forward and backward equal to one device."""
    given, mask, g = arrays(length, length, b=2)
    expected = values(attention.plain, given, mask, g)
    mesh = MeshShape(data=2, context=4).build()
    function = jax.jit(lambda q, k, v, mask, g: values_on(on_mesh(attend, mesh), (q, k, v), mask, g))
    tokens = jax.NamedSharding(mesh, jax.P("data", "context"))
    placed = [jax.device_put(x, tokens) for x in given], mask, jax.device_put(g, tokens)
    for ours, theirs in zip(function(*placed[0], *placed[1:]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)
    traced = str(jax.make_jaxpr(on_mesh(attend, mesh))(*given, mask))
    assert ("shard_map" in traced) == scans


def test_a_training_step_on_a_cpu_holds_the_scores_of_some_queries_only():
    mesh = MeshShape().build(jax.devices()[:1])
    shapes = [jax.ShapeDtypeStruct((1, 2048, 2, 32), jnp.float32)] * 3

    def temporary(function):
        step = jax.grad(lambda *given: on_mesh(function, mesh)(*given).sum(), argnums=(0, 1, 2))
        return jax.jit(step).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    scores = 4 * 2 * 2048 * 2048
    assert temporary(attend) < scores / 2 < scores < temporary(lambda *given: attention.plain(*given, None))


@pytest.mark.parametrize(
    ("length", "keys", "masked", "dtype", "expected"),
    [
        (64, 64, False, jnp.bfloat16, "cudnn"),
        (64, 64, False, jnp.float32, None),
        (64, 13, True, jnp.bfloat16, None),  # cuDNN refuses a mask of keys that is not as long as the queries
        (64, 13, False, jnp.bfloat16, None),  # and an odd number of keys in training
        (49, 49, False, jnp.bfloat16, None),
    ],
)
def test_what_cudnn_refuses_has_xla_s_attention(monkeypatch, length, keys, masked, dtype, expected):
    """Seen on an H100 with jax 0.11.2: masked or odd keys raised an error, so no half-precision prior of texts could run."""
    chosen = []

    def plain(query, key, value, mask=None, implementation=None):
        chosen.append(implementation)
        return query

    monkeypatch.setattr(attention, "plain", plain)
    (query, key, value), mask, _ = arrays(length, keys, masked=masked)
    given = [x.astype(dtype) for x in (query, key, value)]
    device = jax.sharding.AbstractDevice("NVIDIA H100", None, "gpu")
    with jax.sharding.use_abstract_mesh(MeshShape().build().abstract_mesh.update(abstract_device=device)):
        attend(*given, mask)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    attend(*given, mask)  # without a mesh, as for an export, which is for other platforms too
    assert chosen == [expected, None]


def test_heads_that_cudnn_does_not_take():
    def fits(width):
        return attention.fits_cudnn(jnp.zeros((1, 64, 2, width), jnp.bfloat16), 64, 64)

    assert [fits(width) for width in (64, 128, 20, 192)] == [True, True, False, False]
