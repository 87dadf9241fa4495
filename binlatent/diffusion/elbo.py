"""The likelihood bound of a code: the negative ELBO of the T-step chain with the mixture reverse step."""

import jax
import jax.numpy as jnp

from binlatent import prng
from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.typing import Array, Bool, Denoise, Float, Key


def negative_elbo(
    denoise: Denoise, keys: Key[Array, "b"], code: Bool[Array, "b *bits"], *, schedule: Schedule, steps: int
) -> Float[Array, "t b"]:
    """The bound's terms, in bits: one a step of the grid t = i/steps, i = 1 … steps, and an example.

    Term 1 is E[−log₂ p(z_0 | z_{t_1})]; term i is E[KL(q(z_{s_i} | z_{t_i}, z_0) ‖ p(z_{s_i} | z_{t_i}))], each with one
    draw of z_{t_i}. The prior term is 0 because α(1) = 0. Their sum over steps, divided by the number of bits, is
    "bits per bit": 1 for a fair coin, and in expectation never below the entropy of the data.

    Args:
      denoise: (z_t, t) → flip log-odds.
      keys: one key an example.
      code: bits (b, …).
      steps: T, a static number.
    """
    if steps < 1:
        raise ValueError(f"a likelihood needs at least 1 step, got {steps}")

    def term(_, i):
        t, s = i / steps, (i - 1) / steps
        alpha_t, alpha_s = schedule(t), schedule(s)
        code_t = process.corrupt(prng.uniform(prng.fold(keys, i.astype(jnp.uint32)), code.shape[1:]), code, alpha_t)
        flip_logits = denoise(code_t, jnp.full(code.shape[:1], t))
        true = process.posterior(code_t, code, alpha_t, alpha_s)  # at s = 0 it is z_0 itself: the KL is −log p(z_0 | z_t)
        modelled = process.reverse(code_t, flip_logits, alpha_t, alpha_s, "mixture")
        nats = process.kl(true, modelled).sum(tuple(range(1, code.ndim)))
        return None, nats / jnp.log(2.0)

    _, terms = jax.lax.scan(term, None, jnp.arange(1, steps + 1, dtype=jnp.float32))
    return terms
