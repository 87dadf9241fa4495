"""The compiled programs behind a pipeline. Networks and settings are static, parameters and data are arguments, so each
is compiled once for a setting and a batch size."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from binlatent import prng
from binlatent.diffusion import elbo
from binlatent.diffusion.prediction import marginal
from binlatent.images import to_float
from binlatent.nets import binarize
from binlatent.sampling import editing
from binlatent.sampling.guidance import ConditionalDenoise, guide
from binlatent.sampling.windows import AT_A_TIME, Windows, on_windows, windows_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """What sampling gives: `images` float (n, h, w, c) in [0, 1] or uint8, None without an autoencoder; `codes` bool
    (n, y, x, k); with a trajectory `states` bool (steps + 1, n, y, x, k), from noise to the code."""

    images: np.ndarray | None
    codes: np.ndarray
    states: np.ndarray | None = None


@partial(jax.jit, static_argnames=("net", "windows"))
def encode(params, images, keys, *, net, windows=AT_A_TIME):
    """Codes of images; drawn where keys (b,) are given, thresholded where not.

    Of images larger than the network's, and of codes in `decode`, up to `windows` windows are worked on at a time.
    """

    def apply(images):
        return net.apply({"params": params}, to_float(images), method="encode")

    found = windows_of(net.code_shape, tuple(side // net.downsampling for side in images.shape[1:3]), windows)
    logits = apply(images) if found is None else found(apply, images, scales=(net.downsampling, 1))
    if keys is None:
        return binarize.to_code(logits)
    return binarize.bernoulli(logits, prng.uniform(keys, logits.shape[1:])) > 0.5


@partial(jax.jit, static_argnames=("net", "windows"))
def decode(params, code, *, net, windows=AT_A_TIME):
    """Images in [0, 1] of codes."""
    return _decode(params, code, net, windows)


def _decode(params, code, net, windows):
    apply = partial(net.apply, {"params": params}, method="decode")
    found = windows_of(net.code_shape, code.shape[1:], windows)
    return jnp.clip(apply(code) if found is None else found(apply, code, scales=(1, net.downsampling)), 0, 1)


@partial(jax.jit, static_argnames=("net", "objective"))
def denoise(params, code, t, condition, condition_mask=None, *, net, objective):
    """Flip log-odds f of every bit, (b, y, x, k), of codes at times t (b,); the null condition where the mask is False."""
    return marginal(objective.calibrate(net.apply({"params": params}, code, t, condition, condition_mask), t))


def takes_guidance(net) -> bool:
    """Whether a denoiser's network has the guidance weight as an input."""
    return hasattr(net, "conditioning") and net.conditioning.guidance


def _conditioned(net, params, windows: Windows | None = None) -> ConditionalDenoise:
    """The denoisers of a network. What it computes of the condition alone is computed once, and not at every step."""
    apply = on_windows(partial(net.apply, {"params": params}), windows)

    def conditioned(condition, condition_mask):
        if condition is not None and hasattr(net, "embed_condition"):
            arguments = condition, condition_mask
            condition, condition_mask = net.apply({"params": params}, *arguments, method="embed_condition"), None
        return lambda z, t: apply(z, t, condition, condition_mask)

    return conditioned


@partial(
    jax.jit,
    static_argnames=(
        "net", "objective", "autoencoder", "sampler", "guidance", "clamp", "start", "trajectory", "image_dtype", "passes",
        "windows",
    ),
)  # fmt: skip
def generate(
    params, autoencoder_params, keys, condition, weight, temperature, code, known, negative=None,
    *, net, objective, autoencoder, sampler, guidance, clamp, start, trajectory, image_dtype="float32",
    passes=1, windows=AT_A_TIME,
):  # fmt: skip
    """All of sampling in one compiled call: noise, the reverse steps, decoding.

    Args:
      params, autoencoder_params: of the denoiser and the autoencoder.
      keys: one an example (b,).
      condition: of the denoiser, or None.
      weight, temperature: scalars: the guidance weight (used where `guidance` is given) and the temperature.
      code: bits (b, y, x, k) to start from, noised to time `start`; None starts from noise. It may be a canvas of more
        tokens than the network's, see `sampling.windows`.
      negative: a condition that guidance leads away from; None: the null.
      known: bits to hold, bool (b, y, x, k), by the `clamp` of `editing.hold`; None holds none.
      net, objective: the denoiser's network, and how its output is to be read.
      autoencoder: its network; None gives no images.
      sampler, guidance: a `Sampler`; a `Guidance`, or None for none. A student is given its weight and does what it has learned.
      trajectory: also return every state.
      passes: of each step, see `Sampler`.
      windows: of a canvas, how many to work on at a time.
      image_dtype: `float32` in [0, 1], or `uint8`, a quarter of the bytes to move from the device.

    Returns:
      (images (b, h, w, c) or None, codes (b, y, x, k), states (steps + 1, b, y, x, k) or None).
    """

    if guidance is not None and takes_guidance(net):  # a student, of which guidance is an input
        condition, guidance = dataclasses.replace(condition, guidance=jnp.full(keys.shape, weight)), None
    canvas = None if code is None else windows_of(net.code_shape, code.shape[1:], windows)
    conditioned = _conditioned(net, params, canvas)

    def predicting(output):
        def predict(z, t):
            tempered = objective.temper(output(z, t), t, temperature)
            return objective.calibrate(tempered, t) if sampler.posterior == "mixture" else tempered

        return predict

    predict = alone = predicting(conditioned(condition, None))
    if guidance is not None:
        guided = predicting(guide(conditioned, condition, weight, guidance, negative))
        predict = [guided if guidance.acts(t) else alone for t in sampler.grid(start)[:-1]]
    if code is None:
        begin = sampler.noise(keys, net.code_shape)
    else:
        begin = editing.noised(prng.fold(keys, sampler.steps), code, sampler.schedule(jnp.float32(start)))
    held = None if known is None else editing.hold(code, known, clamp)
    final = sampler(predict, keys, begin, start=start, clamp=held, trajectory=trajectory, passes=passes)
    final, states = final if trajectory else (final, None)
    images = None
    if autoencoder is not None:
        images = _decode(autoencoder_params, final, autoencoder, windows)
        if image_dtype == "uint8":
            images = jnp.round(images * 255).astype(jnp.uint8)
    return images, final, states


@partial(jax.jit, static_argnames=("net", "objective", "steps"))
def negative_elbo(params, code, keys, condition, *, net, objective, steps):
    """Terms (steps, b) of the bound of codes, in bits."""

    denoise = _conditioned(net, params)(condition, None)

    def predict(z, t):
        return objective.calibrate(denoise(z, t), t)

    return elbo.negative_elbo(predict, keys, code, schedule=objective.schedule, steps=steps)
