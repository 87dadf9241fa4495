"""Time and memory of attention that writes its scores to memory, and of that which does not; the tables of `docs/attention.md`.

    python -m binlatent.machines.attention
    python -m binlatent.machines.attention --topology v5e:2x4

Forward and backward, without a network around them. On this machine's first device both are run in turn; for a slice of TPUs
they are compiled by the TPU's compiler, which gives memory only.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from binlatent import mesh as mesh_lib
from binlatent.console import say, script
from binlatent.mesh import MeshShape, on_mesh
from binlatent.nets import attention

VARIANTS = {"scores in memory": attention.plain, "attend": attention.attend}


def compiled(function: Callable, mesh: Mesh, *, examples: int, tokens: int, heads: int, width: int, dtype: str):
    """(queries, keys, values) → their gradients, for `examples` on each device of a mesh, and the shape of an argument."""

    def loss(*given):
        return jnp.square(function(*given).astype(jnp.float32)).sum()

    shape = (examples * mesh.shape["data"], tokens, heads, width)
    given = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=mesh_lib.batch_sharding(mesh))
    return jax.jit(on_mesh(jax.grad(loss, argnums=(0, 1, 2)), mesh)).lower(given, given, given).compile(), given


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", help="a slice of TPUs, as v5e:2x4; this machine's device unless given")
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--examples", type=int, nargs="+", default=[16, 4, 1], help="on a device, for each of --tokens")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--width", type=int, default=64, help="of a head")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    if args.topology:
        from binlatent.machines.slices import open_slice

        jax.config.update("jax_platforms", "cpu")  # the process must not look for TPUs itself
        devices = open_slice(args.topology).devices
    else:
        devices = jax.devices()[:1]
    mesh = MeshShape().build(devices)
    make = functools.partial(compiled, mesh=mesh, heads=args.heads, width=args.width, dtype=args.dtype)
    say(f"{devices[0].device_kind}, {args.heads} heads of {args.width}, {args.dtype}\n")
    say("| tokens | examples | attention | ms | temporary memory of a device |\n|---:|---:|---|---:|---:|")
    for tokens, examples in zip(args.tokens, args.examples, strict=True):
        programs = {name: make(function, examples=examples, tokens=tokens) for name, function in VARIANTS.items()}
        seconds = {name: [] for name in programs}
        for _ in range(0 if args.topology else args.rounds + 1):  # the first warms up
            for name, (program, shape) in programs.items():
                given = [jax.random.normal(jax.random.key(i), shape.shape, shape.dtype) for i in range(3)]
                jax.block_until_ready(given)
                started = time.perf_counter()
                jax.block_until_ready(program(*given))
                seconds[name].append(time.perf_counter() - started)
        for name, (program, _) in programs.items():
            took = f"{1e3 * np.median(seconds[name][1:]):.0f}" if seconds[name] else "–"
            temporary = program.memory_analysis().temp_size_in_bytes / 2**20
            say(f"| {tokens:,} | {examples} | {name} | {took} | {temporary:,.0f} MiB |")


if __name__ == "__main__":
    script(main)
