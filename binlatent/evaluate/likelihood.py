"""The prior's likelihood of held-out codes: the negative ELBO of the mixture chain, in bits."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from binlatent.evaluate.result import EvaluationResult, Score
from binlatent.evaluate.statistics import ScoreError

CHUNK = 256  # codes per seed; a constant, because the result depends on it
BINS = 16


def likelihood(
    elbo_terms: Callable[[np.ndarray, int, Any], np.ndarray],
    chunks: Iterable[tuple[np.ndarray, Any]],
    *,
    seed: int,
    settings: dict[str, Any],
    progress: Callable[[int], None] = lambda count: None,
) -> EvaluationResult:
    """Computes bits per bit and bits per image with standard errors, and the bound's terms by time.

    Args:
      elbo_terms: (codes (b, y, x, k), seed, conditions) → terms in bits (steps, b).
      chunks: (codes, conditions or None), of `CHUNK` codes each except the last.

    Raises:
      ScoreError: there are no codes, or the bound is not finite.
    """
    totals, sums, count = [], None, 0
    for i, (codes, condition) in enumerate(chunks):
        chunk_seed = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        terms = np.asarray(elbo_terms(codes, chunk_seed, condition), np.float64)
        if not np.isfinite(terms).all():
            raise ScoreError("the bound is not finite; the prior's parameters are broken")
        totals.append(terms.sum(0))
        sums = terms.sum(1) if sums is None else sums + terms.sum(1)
        count += len(codes)
        bits = codes[0].size
        progress(len(codes))
    if sums is None:
        raise ScoreError("there are no codes to score")
    totals = np.concatenate(totals)
    error = float(totals.std(ddof=1) / count**0.5) if count > 1 else None
    steps = len(sums)
    edges = np.linspace(0, steps, min(BINS, steps) + 1).round().astype(int)
    by_time = np.add.reduceat(sums / count / bits, edges[:-1])
    kind = "standard error over images, of images and noise"
    return EvaluationResult(
        settings=settings | {"codes": count, "bits_per_code": int(bits), "likelihood_steps": steps},
        scores=[
            Score(
                key="bits_per_bit", name="bits per bit", value=float(totals.mean() / bits), better="lower", unit="bits",
                error=None if error is None else error / bits, error_kind=kind,
            ),
            Score(
                key="bits_per_image", name="bits per image", value=float(totals.mean()), better="lower", unit="bits",
                error=error, error_kind=kind,
            ),
        ],
        curves={"bound_by_time": {"time": (edges / steps).tolist(), "bits_per_bit": by_time.tolist()}},
    )  # fmt: skip
