"""An exact denoiser of a small discrete distribution: what a perfect network would say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np


class Oracle:
    """A distribution over `patterns` (p, k) with `weights` (p,), and its exact flip log-odds."""

    def __init__(self, patterns, weights, schedule):
        self.patterns, self.weights, self.schedule = jnp.asarray(patterns), jnp.asarray(weights), schedule

    @classmethod
    def random(cls, schedule, *, bits=10, patterns=12, seed=0):
        rng = np.random.default_rng(seed)
        rows = rng.choice(2**bits, patterns, replace=False)
        table = (rows[:, None] >> np.arange(bits)) & 1
        return cls(table.astype(bool), rng.dirichlet(np.ones(patterns)).astype(np.float32), schedule)

    def __call__(self, code, t):
        alpha = self.schedule(t)[:, None, None]
        same = code[:, None, :] == self.patterns[None]
        evidence = jnp.log(jnp.where(same, (1 + alpha) / 2, (1 - alpha) / 2)).sum(-1)  # (b, p)
        posterior = jax.nn.softmax(evidence + jnp.log(self.weights)[None])
        m = jnp.clip(posterior @ self.patterns.astype(jnp.float32), 1e-7, 1 - 1e-7)
        logit = jnp.log(m) - jnp.log1p(-m)
        return jnp.where(code, -logit, logit)

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


def all_codes(bits):
    return np.array(list(itertools.product([False, True], repeat=bits)))
