import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import config as config_lib
from binlatent.mesh import MeshShape
from binlatent.nets.condition import Conditioning
from binlatent.train import throughput
from binlatent.train.compile import StagePrograms
from binlatent.train.throughput import Window, count_flops, peak_flops
from tests import tiny


def test_products_are_counted_in_loops_and_branches():
    a, b = jnp.zeros((4, 8)), jnp.zeros((8, 16))
    one = 2 * 4 * 8 * 16
    assert count_flops(lambda a, b: a @ b, a, b) == one
    assert count_flops(jax.jit(lambda a, b: jax.nn.relu(a @ b)), a, b) == one
    assert (
        count_flops(lambda a, b: jax.lax.scan(lambda c, _: (c + (a @ b).sum(), None), 0.0, length=7), a, b) == 7 * one
    )
    branches = lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: (a @ b).sum(), lambda: 0.0)  # noqa: E731
    assert count_flops(branches, a, b) == one
    assert count_flops(lambda a, b: (a @ b, a @ (b + 1))[0], a, b) == one  # no result needs the other
    unused = jax.jit(lambda a, b: (a @ b, a @ b + 1))
    assert count_flops(lambda a, b: unused(a, b)[0], a, b) == one


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_agree_with_xla(stride):
    x, k = jax.ShapeDtypeStruct((2, 16, 16, 8), jnp.float32), jax.ShapeDtypeStruct((1, 1, 8, 4), jnp.float32)

    def loss(x, k):
        return jax.lax.conv_general_dilated(x, k, (stride,) * 2, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    forward = count_flops(loss, x, k)
    assert forward == 2 * 2 * (16 // stride) ** 2 * 8 * 4
    # backward: the gradient of the kernel costs as much, and so does that of the images
    squares = jax.grad(lambda x, k: jnp.square(loss(x, k)).sum(), (0, 1))  # whose gradient needs the result
    assert count_flops(squares, x, k) == pytest.approx(3 * forward, rel=0.02)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_prior_step_is_three_times_its_forward_pass(remat):
    config = tiny.config(prior__width=64, prior__remat=remat)
    stage = config_lib.build_prior_stage(config, (4, 4, 4), Conditioning())
    batch = {"code": jax.ShapeDtypeStruct((8, 8), jnp.uint8)}
    counted = StagePrograms(stage, MeshShape().build(jax.devices()[:1]), batch).step_flops()
    tokens, d = 8 * 16, 64
    # the matrices of attention and those of 192 gated units, then scores and mixing over 16 tokens
    block = 2 * tokens * (4 * d**2 + 3 * d * 192) + 4 * tokens * 16 * d
    head = 8 * 4 + 8  # 8 components of 4 bits, and their weights
    others = 2 * tokens * (4 + head) * d + 2 * 8 * (256 * d + d**2 + 6 * d**2 + 2 * d**2)
    # the first layer's inputs need no gradient, so slightly less than three times
    assert 0.97 * 3 * (2 * block + others) < counted <= 3 * (2 * block + others)


def test_peaks_go_by_the_longest_name():
    assert peak_flops("TPU v5 lite") == 197e12 and peak_flops("TPU v5p") == 459e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989.4e12 and peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("cpu") is None and peak_flops("NVIDIA L40") is None


def test_a_window_reports_rates_without_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(throughput, "peak_flops", lambda kind: 1e12)
    monkeypatch.setattr(throughput, "peak_memory", lambda: 3 * 2**30)
    window = Window(32)
    for loss in (1.0, float("nan"), 3.0):
        now[0] += 5.0
        window.waited += 1.0
        window.ran(1)
        window.add({"loss": loss})
    record = window.flush(4 * 10**12 * jax.device_count())
    assert record["loss"] == 2.0  # the mean of the finite ones
    assert record["seconds_per_step"] == 5.0 and record["examples_per_second"] == 32 / 5
    assert record["mfu"] == pytest.approx(4 / 5) and record["peak_memory_gib"] == 3
    np.testing.assert_allclose(record["input_wait"], 0.2)
    window.ran(1)
    window.add({"loss": 1.0})
    now[0] += 100.0  # an evaluation
    window.pause()
    now[0] += 2.0
    window.ran(1)
    window.add({"loss": 3.0})
    assert window.flush()["seconds_per_step"] == 2.0


def test_rates_where_records_and_calls_do_not_end_together(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    window, records = Window(8), []
    for _ in range(3):  # calls of four steps, of a second each; a record every two steps
        now[0] += 4.0
        window.ran(4)
        for step in range(4):
            window.add({"loss": 1.0})
            records += [window.flush()] if step % 2 else []
    assert [record.get("seconds_per_step") for record in records] == [1.0, None] * 3
