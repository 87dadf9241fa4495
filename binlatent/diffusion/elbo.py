"""The likelihood bound of a code: the negative ELBO of the T-step chain with the mixture reverse step."""

import jax
import jax.numpy as jnp

from binlatent import prng
from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Bool, Denoise, Float, Int, Key, Prediction


def term(
    prediction: Prediction,
    flipped: Bool[Array, "b *bits"],
    uniform: Float[Array, "b *bits"],
    index: Int[Array, "b"],
    *,
    schedule: Schedule,
    steps: int,
) -> Float[Array, "b"]:
    """Term `index` (1 … steps) of each example's bound, in bits, at one draw of z_t; the bound is their sum.

    Term i is KL(q(z_s | z_t, z_0) ‖ p(z_s | z_t)) at t = i/steps, s = (i − 1)/steps; term 1 is −log₂ p(z_0 | z_{t_1}).
    `steps` times the term of a random index is an unbiased estimate of the whole bound.

    Args:
      prediction: flip log-odds f at (z_t, t).
      flipped: where z_0 differs from z_t.
      uniform: U[0, 1) draws for z_s, used where bits are tied together.
    """
    alpha_t, alpha_s = schedule(index / steps), schedule((index - 1) / steps)
    return process.divergence(prediction, flipped, uniform, alpha_t, alpha_s) / jnp.log(2.0)


def negative_elbo(
    denoise: Denoise, keys: Key[Array, "b"], code: Bool[Array, "b *bits"], *, schedule: Schedule, steps: int
) -> Float[Array, "t b"]:
    """The bound's terms, in bits: one a step of the grid t = i/steps, i = 1 … steps, and an example.

    The prior term is 0 because α(1) = 0. The sum over steps, divided by the number of bits, is "bits per bit": 1 for a
    fair coin, and in expectation never below the entropy of the data.

    Args:
      denoise: (z_t, t) → flip log-odds f.
      keys: one key an example.
      code: bits (b, …).
      steps: T, a static number.

    Raises:
      ValueError: fewer than 1 step.
    """
    if steps < 1:
        raise ValueError(f"a likelihood needs at least 1 step, got {steps}")

    def one(_, i):
        step_keys, index = prng.fold(keys, i), jnp.full(code.shape[:1], i)
        noise, uniform = (prng.uniform(prng.fold(step_keys, j), code.shape[1:]) for j in range(2))
        code_t = process.corrupt(noise, code, schedule(index / steps))
        prediction = denoise(code_t, index / steps)
        return None, term(prediction, code ^ code_t, uniform, index, schedule=schedule, steps=steps)

    _, terms = jax.lax.scan(one, None, jnp.arange(1, steps + 1, dtype=jnp.int32))
    return terms
