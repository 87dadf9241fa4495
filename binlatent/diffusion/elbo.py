"""The likelihood bound of a code: the negative ELBO of the T-step chain with the mixture reverse step."""

import jax
import jax.numpy as jnp

from binlatent import prng
from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Bool, Denoise, Float, Int, Key


def term(
    denoise: Denoise,
    uniform: Float[Array, "b *bits"],
    code: Bool[Array, "b *bits"],
    index: Int[Array, "b"],
    *,
    schedule: Schedule,
    steps: int,
) -> Float[Array, "b"]:
    """Term `index` (1 … steps) of each example's bound, in bits, with one draw of z_t; the bound is their sum.

    Term 1 is −log₂ p(z_0 | z_{t_1}); term i is KL(q(z_s | z_t, z_0) ‖ p(z_s | z_t)) at t = i/steps, s = (i − 1)/steps.
    `steps` times the term of a random index is an unbiased estimate of the whole bound.
    """
    t, s = index / steps, (index - 1) / steps
    alpha_t, alpha_s = schedule(t), schedule(s)
    code_t = process.corrupt(uniform, code, alpha_t)
    true = process.posterior(code_t, code, alpha_t, alpha_s)  # at s = 0 it is z_0 itself: the KL is −log p(z_0 | z_t)
    modelled = process.reverse(code_t, denoise(code_t, t), alpha_t, alpha_s, "mixture")
    return process.kl(true, modelled).sum(tuple(range(1, code.ndim))) / jnp.log(2.0)


def negative_elbo(
    denoise: Denoise, keys: Key[Array, "b"], code: Bool[Array, "b *bits"], *, schedule: Schedule, steps: int
) -> Float[Array, "t b"]:
    """The bound's terms, in bits: one a step of the grid t = i/steps, i = 1 … steps, and an example.

    The prior term is 0 because α(1) = 0. The sum over steps, divided by the number of bits, is "bits per bit": 1 for a
    fair coin, and in expectation never below the entropy of the data.

    Args:
      denoise: (z_t, t) → flip log-odds.
      keys: one key an example.
      code: bits (b, …).
      steps: T, a static number.

    Raises:
      ValueError: fewer than 1 step.
    """
    if steps < 1:
        raise ValueError(f"a likelihood needs at least 1 step, got {steps}")

    def one(_, i):
        uniform = prng.uniform(prng.fold(keys, i), code.shape[1:])
        return None, term(denoise, uniform, code, jnp.full(code.shape[:1], i), schedule=schedule, steps=steps)

    _, terms = jax.lax.scan(one, None, jnp.arange(1, steps + 1, dtype=jnp.int32))
    return terms
