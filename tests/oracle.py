"""An exact denoiser of a small discrete distribution, like a perfect network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from binlatent.diffusion.prediction import product
from binlatent.typing import Prediction


class Oracle:
    """A distribution over `patterns` (p, k) with `weights` (p,), and its exact flip log-odds.

    Attributes:
      components: 1 predicts independent bits. More splits the patterns into groups and predicts, for
        every group, its posterior weight and independent bits within it: with one pattern a group the exact joint.
    """

    def __init__(self, patterns, weights, schedule, components=1):
        self.patterns, self.weights, self.schedule = jnp.asarray(patterns), jnp.asarray(weights), schedule
        self.components = components

    @classmethod
    def random(cls, schedule, *, bits=10, patterns=12, seed=0, components=1):
        rng = np.random.default_rng(seed)
        rows = rng.choice(2**bits, patterns, replace=False)
        table = (rows[:, None] >> np.arange(bits)) & 1
        return cls(table.astype(bool), rng.dirichlet(np.ones(patterns)).astype(np.float32), schedule, components)

    def posterior(self, code, t):
        """P(pattern | z_t), (b, p)."""
        alpha = self.schedule(t)[:, None, None]
        same = code[:, None, :] == self.patterns[None]
        evidence = jnp.log(jnp.where(same, (1 + alpha) / 2, (1 - alpha) / 2)).sum(-1)
        return jax.nn.softmax(evidence + jnp.log(self.weights)[None])

    def __call__(self, code, t):
        group = jnp.arange(len(self.weights)) * self.components // len(self.weights)
        member = (group[:, None] == jnp.arange(self.components)[None]).astype(jnp.float32)
        joint = self.posterior(code, t)[:, :, None] * member[None]  # (b, p, C)
        weights = joint.sum(1)
        ones = (
            jnp.einsum("bpc,pk->bck", joint, self.patterns.astype(jnp.float32)) / jnp.maximum(weights, 1e-30)[..., None]
        )
        m = jnp.clip(ones, 1e-7, 1 - 1e-7)
        logit = jnp.log(m) - jnp.log1p(-m)
        flips = jnp.where(code[:, None], -logit, logit)
        return product(flips[:, 0]) if self.components == 1 else Prediction(flips, jnp.log(jnp.maximum(weights, 1e-30)))

    @property
    def entropy(self):
        """In bits."""
        return float(-(self.weights * jnp.log2(self.weights)).sum())

    def total_variation(self, codes):
        """Between the empirical distribution of codes (n, k) and the true one."""
        k = self.patterns.shape[1]
        place = 2 ** np.arange(k)
        found = np.bincount(np.asarray(codes) @ place, minlength=2**k) / len(codes)
        true = np.zeros(2**k)
        true[np.asarray(self.patterns) @ place] = self.weights
        return 0.5 * np.abs(found - true).sum()

    def expected_noise(self, n):
        """Total variation of n exact draws, roughly: its mean over a few draws."""
        rng = np.random.default_rng(0)
        p = np.asarray(self.weights, np.float64)
        p = p / p.sum()
        draws = (rng.multinomial(n, p) / n for _ in range(20))
        return np.mean([0.5 * np.abs(d - p).sum() for d in draws])


def guess(code, t):
    """A prediction of two components of the code, of two each a token, that depends on every bit and on the time, for codes
    (b, l, k) and times (b,)."""
    logits = jnp.where(code, 1.0, -0.5)[:, :, None] * jnp.array([1.0, -2.0, 0.5, 3.0])[None, None, :, None]
    weights = jnp.where(code[..., :1], 0.3, -0.4) * jnp.array([[[1.0, -1.0, 2.0, 0.5]]]) * t[:, None, None]
    code_weights = jnp.stack([t, code.mean((1, 2))], axis=-1)
    return Prediction(logits + t[:, None, None, None], weights, code_weights)


def all_codes(bits):
    return np.array(list(itertools.product([False, True], repeat=bits)))
