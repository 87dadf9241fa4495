"""Attention, by the kernel that suits the device, the type and the number of tokens.

* GPU, half precision: cuDNN's fused kernel, which takes an even number of tokens and no mask of keys; texts, which are short
  and masked, have XLA's own.
* TPU, from 1,024 tokens on: splash attention, a Pallas kernel of JAX. The compiler cannot divide it over devices, so it runs
  in a `shard_map` over examples and heads.
* CPU, from 1,024 tokens on: queries in chunks, whose scores are computed again in the backward pass.
* Otherwise XLA's own, which writes the scores of all queries and keys to memory.

TPU and CPU are those of the mesh that the program is traced for (`mesh.on_mesh`), which may not be this machine's. A program
that is traced without one, such as an exported function, has XLA's own.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from binlatent.mesh import BATCH, platform
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
    if jax.default_backend() == "gpu" and fits_cudnn(query, key, mask):
        return plain(query, key, value, implementation="cudnn")
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or length * keys < LONG:
        return plain(query, key, value, mask)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if platform() == "tpu" and b % parts == 0 and length % LANES == keys % LANES == 0:
        by_head = "tensor" if heads % mesh.shape["tensor"] == 0 else None
        return _over_devices(query, key, value, mask, by_head)
    if platform() == "cpu" and length % CHUNK == 0:
        return chunked(query, key, value, mask)
    return plain(query, key, value, mask)


def fits_cudnn(query: Array, key: Array, mask: Array | None) -> bool:
    """Whether cuDNN's kernel has a gradient for such queries (b, l, heads, d) and keys (b, n, heads, d)."""
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and mask is None and query.shape[1] % 2 == key.shape[1] % 2 == 0


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


def _over_devices(query: Array, key: Array, value: Array, mask: Array | None, by_head: str | None) -> Array:
    """The TPU's kernel on each device's examples and heads."""
    arrays, rows = PartitionSpec(*BATCH, None, by_head, None), PartitionSpec(*BATCH, None)
    specs = (arrays, arrays, arrays, *(() if mask is None else (rows,)))
    given = (query, key, value, *(() if mask is None else (mask,)))
    return jax.shard_map(splash, in_specs=specs, out_specs=arrays, check_vma=False)(*given)
