"""The compiled programs behind a pipeline. Networks and settings are static, parameters and data are arguments, so each
is compiled once for a setting and a batch size."""

from functools import partial

import jax
import jax.numpy as jnp

from binlatent import prng
from binlatent.diffusion import elbo
from binlatent.images import to_float
from binlatent.nets import binarize
from binlatent.sampling import editing
from binlatent.sampling.guidance import bind, guide


@partial(jax.jit, static_argnames=("net",))
def encode(params, images, keys, *, net):
    """Codes of images; drawn where keys (b,) are given, thresholded where not."""
    logits = net.apply({"params": params}, to_float(images), method="encode")
    if keys is None:
        return binarize.to_code(logits)
    return binarize.bernoulli(logits, prng.uniform(keys, logits.shape[1:])) > 0.5


@partial(jax.jit, static_argnames=("net",))
def decode(params, code, *, net):
    """Images in [0, 1] of codes."""
    return jnp.clip(net.apply({"params": params}, code, method="decode"), 0, 1)


@partial(jax.jit, static_argnames=("net",))
def denoise(params, code, t, condition, *, net):
    """Flip log-odds of codes at times t (b,)."""
    return net.apply({"params": params}, code, t, condition)


@partial(
    jax.jit, static_argnames=("net", "objective", "autoencoder", "sampler", "guidance", "clamp", "start", "trajectory")
)
def generate(
    params, autoencoder_params, keys, condition, weight, temperature, code, known,
    *, net, objective, autoencoder, sampler, guidance, clamp, start, trajectory,
):  # fmt: skip
    """The whole of sampling in one compiled call: noise, the walk, decoding."""

    def apply(z, t, c, keep):
        return net.apply({"params": params}, z, t, c, keep)

    flips = bind(apply, condition) if guidance is None else guide(apply, condition, weight, guidance)
    if sampler.posterior == "mixture":
        flips = _calibrated(flips, objective)
    if code is None:
        begin = sampler.noise(keys, net.code_shape)
    else:
        begin = editing.noised(prng.fold(keys, sampler.steps), code, sampler.schedule(jnp.float32(start)))
    held = None if known is None else editing.hold(code, known, clamp)
    final = sampler(flips, keys, begin, start=start, temperature=temperature, clamp=held, trajectory=trajectory)
    final, states = final if trajectory else (final, None)
    images = None
    if autoencoder is not None:
        images = jnp.clip(autoencoder.apply({"params": autoencoder_params}, final, method="decode"), 0, 1)
    return images, final, states


def _calibrated(denoise, objective):
    """What the mixture step and a likelihood need: log-odds of P(z_0 | z_t), whatever the loss taught."""
    return lambda z, t: objective.calibrate(denoise(z, t), t)


@partial(jax.jit, static_argnames=("net", "objective", "steps"))
def negative_elbo(params, code, keys, condition, *, net, objective, steps):
    """Terms (steps, b) of the bound of codes, in bits."""

    def flips(z, t):
        return net.apply({"params": params}, z, t, condition)

    return elbo.negative_elbo(_calibrated(flips, objective), keys, code, schedule=objective.schedule, steps=steps)
