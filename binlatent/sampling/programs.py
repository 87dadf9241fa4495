"""The compiled programs behind a pipeline. Networks and settings are static, parameters and data are arguments, so each
is compiled once for a setting and a batch size."""

from functools import partial

import jax
import jax.numpy as jnp

from binlatent import prng
from binlatent.diffusion import elbo
from binlatent.diffusion.prediction import marginal
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


@partial(jax.jit, static_argnames=("net", "objective"))
def denoise(params, code, t, condition, condition_mask=None, *, net, objective):
    """Flip log-odds f of every bit, (b, y, x, k), of codes at times t (b,); the null condition where the mask is False."""
    return marginal(objective.calibrate(net.apply({"params": params}, code, t, condition, condition_mask), t))


@partial(
    jax.jit,
    static_argnames=(
        "net", "objective", "autoencoder", "sampler", "guidance", "clamp", "start", "trajectory", "image_dtype",
    ),
)  # fmt: skip
def generate(
    params, autoencoder_params, keys, condition, weight, temperature, code, known,
    *, net, objective, autoencoder, sampler, guidance, clamp, start, trajectory, image_dtype="float32",
):  # fmt: skip
    """All of sampling in one compiled call: noise, the reverse steps, decoding.

    Args:
      params, autoencoder_params: of the denoiser and the autoencoder.
      keys: one an example (b,).
      condition: of the denoiser, or None.
      weight, temperature: scalars: the guidance weight (used where `guidance` is given) and the temperature.
      code: bits (b, y, x, k) to start from, noised to time `start`; None starts from noise.
      known: bits to hold, bool (b, y, x, k), by the `clamp` of `editing.hold`; None holds none.
      net, objective: the denoiser's network, and how its output is to be read.
      autoencoder: its network; None gives no images.
      sampler, guidance: a `Sampler`; a `Guidance`, or None for none.
      trajectory: also return every state.
      image_dtype: `float32` in [0, 1], or `uint8`, a quarter of the bytes to move from the device.

    Returns:
      (images (b, h, w, c) or None, codes (b, y, x, k), states (steps + 1, b, y, x, k) or None).
    """

    def apply(z, t, c, condition_mask):
        return net.apply({"params": params}, z, t, c, condition_mask)

    output = bind(apply, condition) if guidance is None else guide(apply, condition, weight, guidance)

    def predict(z, t):
        tempered = objective.temper(output(z, t), t, temperature)
        return objective.calibrate(tempered, t) if sampler.posterior == "mixture" else tempered

    if code is None:
        begin = sampler.noise(keys, net.code_shape)
    else:
        begin = editing.noised(prng.fold(keys, sampler.steps), code, sampler.schedule(jnp.float32(start)))
    held = None if known is None else editing.hold(code, known, clamp)
    final = sampler(predict, keys, begin, start=start, clamp=held, trajectory=trajectory)
    final, states = final if trajectory else (final, None)
    images = None
    if autoencoder is not None:
        images = jnp.clip(autoencoder.apply({"params": autoencoder_params}, final, method="decode"), 0, 1)
        if image_dtype == "uint8":
            images = jnp.round(images * 255).astype(jnp.uint8)
    return images, final, states


@partial(jax.jit, static_argnames=("net", "objective", "steps"))
def negative_elbo(params, code, keys, condition, *, net, objective, steps):
    """Terms (steps, b) of the bound of codes, in bits."""

    def predict(z, t):
        return objective.calibrate(net.apply({"params": params}, z, t, condition), t)

    return elbo.negative_elbo(predict, keys, code, schedule=objective.schedule, steps=steps)
