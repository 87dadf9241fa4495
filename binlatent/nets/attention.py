"""Attention, by the kernel that suits the device, the type and the number of tokens.

* GPU, half precision: cuDNN's fused kernel, which takes an even number of tokens and no mask of keys; texts, which are short
  and masked, have XLA's own.
* TPU, from 1,024 tokens on: splash attention, a Pallas kernel of JAX.
* CPU, from 1,024 tokens on: queries in chunks, whose scores are computed again in the backward pass.
* Otherwise XLA's own, which writes the scores of all queries and keys to memory.

XLA cannot divide these kernels over devices, so they run in a `shard_map` over examples, heads and the mesh's axis `context`: a
device has some of the queries of its examples, and gathers all their keys and values.

TPU and CPU are those of the mesh that the program is traced for (`mesh.on_mesh`), which may not be this machine's. A program
that is traced without one, such as an exported function, has XLA's own.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from binlatent.mesh import AXES, BATCH, platform
from binlatent.typing import Array

LONG = 2**20  # queries × keys from which the scores are not written to memory
CHUNK = 128  # queries at a time on a CPU
LANES, BLOCKS = 128, (512, 256, 128)  # of the TPU's kernel: tokens must be a multiple of the first, and of its block


def attend(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """Attention of queries (b, l, heads, d) over keys and values (b, n, heads, d).

    Args:
      mask: bool (b, n), which keys count, at least one for each example; None: all.
    """
    (b, length, heads, _), keys = query.shape, key.shape[1]
    mesh = jax.sharding.get_abstract_mesh()
    sizes = dict.fromkeys(AXES, 1) if mesh.empty else mesh.shape
    own = length // sizes["context"]  # queries of an example on a device
    divides = b % (sizes["data"] * sizes["fsdp"]) == 0 and length % sizes["context"] == 0
    on_gpu = not mesh.empty and platform() == "gpu" and mask is None and fits_cudnn(query, own, keys)
    if on_gpu and sizes["context"] == 1:
        return plain(query, key, value, implementation="cudnn")
    kernel = None
    if on_gpu:
        kernel = partial(plain, implementation="cudnn")
    elif not mesh.empty and length * keys >= LONG:
        if platform() == "tpu" and own % LANES == keys % LANES == 0:
            kernel = splash
        elif platform() == "cpu" and own % CHUNK == 0:
            kernel = chunked
    if kernel is None or not divides:
        if sizes["context"] > 1:
            key, value = (_gathered(x) for x in (key, value))
        return plain(query, key, value, mask)
    return _over_devices(kernel, query, key, value, mask, "tensor" if heads % sizes["tensor"] == 0 else None)


def fits_cudnn(query: Array, length: int, keys: int) -> bool:
    """Whether cuDNN's kernel has a gradient for queries of this type and width, so many of them and keys, without a mask."""
    half, width = query.dtype in (jnp.bfloat16, jnp.float16), query.shape[-1]
    return half and length % 2 == keys % 2 == 0 and width % 8 == 0 and width <= 128


def plain(
    query: Array, key: Array, value: Array, mask: Array | None = None, implementation: str | None = None
) -> Array:
    """Attention by JAX's function: on most devices, with all scores in memory."""
    mask = None if mask is None else mask[:, None, None]
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)


def chunked(query: Array, key: Array, value: Array, mask: Array | None = None, size: int = CHUNK) -> Array:
    """Attention with the scores of so many queries at a time in memory, in the backward pass too."""
    b, length, heads, d = query.shape
    some = jax.checkpoint(lambda part: plain(part, key, value, mask))
    parts = jax.lax.map(some, query.reshape(b, length // size, size, heads, d).swapaxes(0, 1))
    return parts.swapaxes(0, 1).reshape(b, length, heads, d)


def splash(query: Array, key: Array, value: Array, mask: Array | None = None, *, interpret: bool = False) -> Array:
    """Attention by the TPU's kernel on one device; numbers of tokens are multiples of 128.

    Args:
      interpret: run it without a TPU, slowly.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    (b, length, heads, d), keys = query.shape, key.shape[1]
    kernel = _kernel(length, keys, heads, interpret)
    # (b, heads, l, d); the kernel does not scale
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query * query.dtype.type(1 / math.sqrt(d)), key, value))
    if mask is None:
        mixed = jax.vmap(kernel)(query, key, value)
    else:  # a query attends to keys of its own segment: all are of segment 1, padding is of 0
        segments = SegmentIds(q=jnp.ones((b, length), jnp.int32), kv=mask.astype(jnp.int32))
        mixed = jax.vmap(kernel)(query, key, value, segments)
    return jnp.swapaxes(mixed, 1, 2)


def _kernel(length: int, keys: int, heads: int, interpret: bool):
    from jax.experimental.pallas.ops.tpu import splash_attention

    q, kv = (next(block for block in BLOCKS if tokens % block == 0) for tokens in (length, keys))
    blocks = splash_attention.BlockSizes(
        block_q=q, block_kv=kv, block_kv_compute=kv, block_q_dkv=q, block_kv_dkv=kv, block_kv_dkv_compute=kv,
        block_q_dq=q, block_kv_dq=kv,
    )  # fmt: skip
    everything = splash_attention.MultiHeadMask([splash_attention.FullMask((length, keys)) for _ in range(heads)])
    return splash_attention.make_splash_mha_single_device(everything, block_sizes=blocks, interpret=interpret)


def _over_devices(
    kernel: Callable[..., Array], query: Array, key: Array, value: Array, mask: Array | None, by_head: str | None
) -> Array:
    """A kernel on each device's examples, heads, and part of the queries."""
    queries, arrays = (PartitionSpec(*BATCH, axis, by_head, None) for axis in ("context", None))
    specs, given = (queries, arrays, arrays), (query, key, value)
    if mask is not None:
        specs, given = (*specs, PartitionSpec(*BATCH, None)), (*given, mask)
    return jax.shard_map(kernel, in_specs=specs, out_specs=queries, check_vma=False)(*given)


def _gathered(x: Array) -> Array:
    """Keys or values (b, n, heads, d) with all tokens of an example on each of its devices."""
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*BATCH, None, *(PartitionSpec.UNCONSTRAINED,) * 2))
