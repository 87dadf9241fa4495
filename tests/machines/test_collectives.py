"""Collectives, counted in programs whose collectives are known."""

import jax
import jax.numpy as jnp
import pytest
from jax import P

from binlatent.machines.collectives import collectives
from binlatent.mesh import MeshShape


def compiled(function, *shapes, specs, out):
    mesh = MeshShape(data=1, fsdp=8).build()
    shardings = [jax.NamedSharding(mesh, spec) for spec in specs]
    shapes = [
        jax.ShapeDtypeStruct(x, jnp.float32, sharding=sharding) for x, sharding in zip(shapes, shardings, strict=True)
    ]
    return jax.jit(function, out_shardings=jax.NamedSharding(mesh, out)).lower(*shapes).compile().as_text()


def test_a_sum_over_devices_is_one_all_reduce():
    (found,) = collectives(compiled(lambda x: x.sum(0), (64, 32), specs=[P("fsdp")], out=P()))
    assert (found.kind, found.count, found.bytes, found.largest) == ("all-reduce", 1, 4 * 32, 4 * 32)
    assert "reduce_sum" in found.where


def test_a_replicated_result_is_gathered_whole():
    (found,) = collectives(compiled(lambda x: x + 1, (64, 32), specs=[P("fsdp")], out=P()))
    assert (found.kind, found.count, found.bytes) == ("all-gather", 1, 4 * 64 * 32)


def test_a_program_of_one_device_has_none():
    assert collectives(jax.jit(lambda x: x.sum()).lower(jnp.ones(8)).compile().as_text()) == ()


@pytest.mark.parametrize("steps", [1, 5])
def test_a_collective_in_a_loop_counts_as_often_as_the_loop_runs(steps):
    def function(x):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ x.T @ x), None), x[:8], None, length=steps)[0]

    found = {x.kind: x for x in collectives(compiled(function, (64, 32), specs=[P("fsdp")], out=P()))}
    assert found["all-reduce"].count == steps
    assert found["all-reduce"].bytes == steps * 4 * 8 * 32 and found["all-reduce"].largest == 4 * 8 * 32


TPU = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  ROOT %y = f32[]{:T(128)} parameter(1)
}

%begin (p: bf16[1,128,16]) -> (bf16[1,128,16], bf16[1,128,128]) {
  %p = bf16[1,128,16]{1,2,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[1,128,128]{1,2,0:T(8,128)(2,1)} all-gather(%p), channel_id=9, dimensions={2}, \
frontend_attributes={chain_id="4"}, metadata={op_name="jit(step)/blocks/attention_out/dot_general"}
  ROOT %call.1 = (bf16[1,128,16]{1,2,0}, bf16[1,128,128]{1,2,0}) custom-call(%all-gather.1), custom_call_target="Start"
}

%async_collective_fusion.2 (q: bf16[1,128,16]) -> bf16[1,128,128] {
  %q = bf16[1,128,16]{1,2,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[1,128,128]{1,2,0:T(8,128)(2,1)S(1)} all-gather(%q), channel_id=9, dimensions={2}, \
frontend_attributes={chain_id="4"}, metadata={op_name="jit(step)/blocks/attention_out/dot_general"}
}

%all-reduce-scatter.3 (input: f32[128,512]) -> f32[16,512] {
  %input = f32[128,512]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.3 = f32[128,512]{1,0:T(8,128)} all-reduce(%input), channel_id=1, to_apply=%add
  ROOT %slice.3 = f32[16,512]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.3), dynamic_slice_sizes={16,512}
}

%body (t: (s32[], bf16[1,128,16], f32[128,512])) -> (s32[], bf16[1,128,16], f32[128,512]) {
  %t = (s32[]{:T(128)}, bf16[1,128,16]{2,1,0}, /*index=2*/f32[128,512]{1,0}) parameter(0)
  %fusion.1 = (bf16[1,128,16]{2,1,0}, bf16[1,128,128]{2,1,0}) fusion(%t), kind=kCustom, calls=%begin
  %fusion.2 = bf16[1,128,128]{2,1,0} fusion(%t), kind=kOutput, calls=%async_collective_fusion.2
  ROOT %fusion.3 = f32[16,512]{1,0} fusion(%t), kind=kCustom, calls=%all-reduce-scatter.3
}

%condition (t: (s32[], bf16[1,128,16], f32[128,512])) -> pred[] {
  %limit = s32[]{:T(128)} constant(24)
  %t = (s32[]{:T(128)}, bf16[1,128,16]{2,1,0}, /*index=2*/f32[128,512]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  %while.1 = (s32[]{:T(128)}, bf16[1,128,16]{2,1,0}) while(%a), condition=%condition, body=%body
  %all-reduce.5 = (f32[64]{0:T(128)S(1)}, bf16[7,3]{1,0}) all-reduce(%a, %a), channel_id=3, to_apply=%add
  %reduce-scatter.1 = f32[8]{0} reduce-scatter(%a), channel_id=4, dimensions={0}, to_apply=%add
  %all-gather-start.7 = (f32[8]{0}, f32[64]{0}) all-gather-start(%reduce-scatter.1), channel_id=5, dimensions={0}
  ROOT %all-gather-done.7 = f32[64]{0} all-gather-done(%all-gather-start.7)
}
"""


def test_what_the_tpu_s_compiler_writes_counts_as_what_it_is():
    found = {x.kind: x for x in collectives(TPU)}
    assert set(found) == {"all-gather", "reduce-scatter", "all-reduce"}
    gather, scatter, reduce = found["all-gather"], found["reduce-scatter"], found["all-reduce"]
    # one chain in a loop of 24, and one asynchronous gather outside of it
    assert (gather.count, gather.bytes) == (24 + 1, 24 * 2 * 128 * 128 + 4 * 64)
    assert gather.largest == 2 * 128 * 128 and gather.where.endswith("attention_out/dot_general")
    assert (scatter.count, scatter.bytes) == (24 + 1, 24 * 4 * 128 * 512 + 4 * 64)
    assert (reduce.count, reduce.bytes, reduce.largest) == (1, 4 * 64 + 2 * 7 * 3, 4 * 64)
    assert collectives(TPU)[0].kind == "reduce-scatter"  # that of most bytes first
