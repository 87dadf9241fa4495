"""The speed of a training step of stage 1 and of its parts; the figures of `docs/throughput.md`.

    python -m binlatent.machines.parts

All variants are compiled first and then timed in turn, one step each, so that other load on the machine affects all of
them alike. Ratios are of medians.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from binlatent import prng
from binlatent.console import say, script
from binlatent.images import to_float
from binlatent.nets.autoencoder import BinaryAutoencoder
from binlatent.nets.patchgan import PatchGAN
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.autoencoder import AutoencoderStage
from binlatent.train.discriminator import DiscriminatorTraining
from binlatent.train.optimizer import Optimizer
from binlatent.train.terms import Term


def stage_of(args, *, patch_size: int, adversarial: bool, adaptive: bool = True) -> AutoencoderStage:
    """A stage for 32×32 images and 8×8 codes; with patch_size 2, it has one level fewer."""
    net = BinaryAutoencoder(
        resolution=32, patch_size=patch_size, channels=args.channels,
        channel_multipliers=(1, 2) if patch_size == 2 else (1, 1, 2),
        res_blocks=1, attention_resolutions=(), code_bits=16, embedding_width=2 * args.channels,
    )  # fmt: skip
    optimizer = Optimizer(learning_rate=1e-4)
    discriminator = DiscriminatorTraining(
        net=PatchGAN(channels=args.channels, layers=2), adversarial=Adversarial(adaptive=adaptive),
        augmentation=Augmentation(), optimizer=optimizer,
    )  # fmt: skip
    terms = (Term(name="l1"), *([Term(name="adversarial", weight=0.1)] if adversarial else []))
    return AutoencoderStage(
        net=net, terms=terms, optimizer=optimizer, num_steps=1000, discriminator=discriminator if adversarial else None
    )


class SeveralPasses:
    """The same step, written with one backward pass per loss."""

    def __init__(self, stage: AutoencoderStage):
        self.stage, self.init = stage, stage.init

    def train_step(self, state, batch, key):
        stage, discriminator = self.stage, self.stage.discriminator
        images = to_float(batch["image"])
        noise = prng.uniform(prng.fold(prng.per_example(key, images.shape[0]), 0), stage.net.code_shape)

        def reconstruct(params):
            return stage.net.apply({"params": params}, images, noise)[0]

        def image_loss(params):
            return jnp.abs(images - reconstruct(params)).mean()

        def adversarial_loss(params):
            logits = discriminator.net.apply({"params": state.params["discriminator"]}, reconstruct(params))
            return discriminator.adversarial.generator_loss(logits).mean()

        def discriminator_loss(params):
            reconstructions = jax.lax.stop_gradient(reconstruct(state.params["autoencoder"]))
            real = discriminator.net.apply({"params": params}, images)
            return discriminator.adversarial.discriminator_loss(
                real,
                discriminator.net.apply({"params": params}, reconstructions),
            ).mean()

        l1, first = jax.value_and_grad(image_loss)(state.params["autoencoder"])
        # the barriers keep the compiler from sharing work between passes, which eager frameworks cannot do
        first, state = jax.lax.optimization_barrier((first, state))
        adversarial, second = jax.value_and_grad(adversarial_loss)(state.params["autoencoder"])
        second, state = jax.lax.optimization_barrier((second, state))
        of_discriminator, third = jax.value_and_grad(discriminator_loss)(state.params["discriminator"])
        weight = discriminator.adversarial.adaptive_weight(
            *(g["decoder"]["conv_out"]["kernel"] for g in (first, second))
        )
        grads = {"autoencoder": jax.tree.map(lambda a, b: a + 0.1 * weight * b, first, second), "discriminator": third}
        updated = stage.update(state, grads)
        loss = l1 + 0.1 * weight * adversarial
        new_state = state.advance(
            params={name: params for name, (params, _) in updated.items()},
            opt_state={name: opt_state for name, (_, opt_state) in updated.items()},
            finite=jnp.isfinite(loss), ema_decay=stage.optimizer.ema_decay,
        )  # fmt: skip
        return new_state, {"loss": loss, "discriminator": of_discriminator, "adaptive_weight": weight}


def programs(args) -> dict:
    """Compiled programs by name: a step of each variant, and the parts of a step."""
    batch = {"image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (args.batch_size, 32, 32, 3), np.uint8))}
    key = jax.random.key(0)
    compiled = {}

    def add(name, function, *values):
        compiled[name] = (jax.jit(function).lower(*values).compile(), values)

    def step(name, stage):
        state = jax.jit(lambda: stage.init(key, batch))()
        add(name, lambda state, batch: stage.train_step(state, batch, key), state, batch)
        return state

    step("no patch_size, no discriminator", stage_of(args, patch_size=1, adversarial=False))
    plain = stage_of(args, patch_size=2, adversarial=False)
    state = step("no discriminator", plain)
    stage = stage_of(args, patch_size=2, adversarial=True)
    full = step("one pass", stage)
    step("one pass, weight not adaptive", stage_of(args, patch_size=2, adversarial=True, adaptive=False))
    step("one pass per loss", SeveralPasses(stage))

    net, images = stage.net, to_float(batch["image"])
    params, discriminator_params = state.params["autoencoder"], full.params["discriminator"]
    keys = prng.per_example(key, args.batch_size)
    noise = prng.uniform(keys, net.code_shape)
    add("encoder, forward", lambda p, x: net.apply({"params": p}, x, method=net.encode), params, images)
    add("decoder, forward", lambda p, z: net.apply({"params": p}, z, method=net.decode), params, noise)
    add(
        "autoencoder, forward and backward",
        jax.grad(lambda p, x, n: jnp.abs(x - net.apply({"params": p}, x, n)[0]).mean()), params, images, noise,
    )  # fmt: skip
    add(
        "discriminator, both losses",
        stage.discriminator.forward,
        discriminator_params,
        full.extra,
        images,
        images[::-1],
        keys,
    )
    update = stage.optimizer.update
    add("optimizer", lambda g, s, p: update(g, s, p, 1000), params, state.opt_state["autoencoder"], params)
    return compiled


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args(argv)
    compiled = programs(args)
    seconds = {name: [] for name in compiled}
    for _ in range(args.rounds + 1):
        for name, (program, values) in compiled.items():
            started = time.perf_counter()
            jax.block_until_ready(program(*values))
            seconds[name].append(time.perf_counter() - started)
    median = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    say(
        f"{args.batch_size} images of 32×32, {args.channels} channels, {args.rounds} rounds, {jax.devices()[0].device_kind}\n"
    )
    say("| program | ms | relative to one pass | GFLOP |\n|---|---|---|---|")
    for name, value in median.items():
        flops = compiled[name][0].cost_analysis()["flops"] / 1e9
        say(f"| {name} | {1000 * value:.0f} | {value / median['one pass']:.2f} | {flops:.2f} |")
    say(f"\none pass rather than one per loss: {median['one pass per loss'] / median['one pass']:.2f} times as fast")
    patch_size = median["no patch_size, no discriminator"] / median["no discriminator"]
    say(f"patch_size 2 instead of the first level: {patch_size:.2f} times as fast")


if __name__ == "__main__":
    script(main)
