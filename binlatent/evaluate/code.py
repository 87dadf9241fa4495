"""Statistics of an autoencoder's bits: how often each is set, their correlations, the number of distinct tokens."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from binlatent.bits import BitStatistics
from binlatent.evaluate.result import EvaluationResult, Score
from binlatent.evaluate.statistics import ScoreError

DISTINCT_LIMIT = 4_000_000  # distinct tokens are counted up to this number
MATRIX_LIMIT = 64  # up to this number of bits, the full correlation matrix is kept


def code(
    encode: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[dict[str, np.ndarray]],
    *,
    settings: dict[str, Any],
    progress: Callable[[int], None] = lambda count: None,
) -> EvaluationResult:
    """Computes bit statistics of a split.

    Args:
      encode: images uint8 (b, h, w, c) → codes bool (b, y, x, k).
      batches: from the loader, with `image` and `mask`.

    Raises:
      ScoreError: there are no images.
    """
    count_batch = jax.jit(BitStatistics.from_code)
    tokens, ones, pairs, images = 0.0, 0.0, 0.0, 0
    seen, complete = set(), True
    for batch in batches:
        codes, mask = encode(batch["image"]), batch["mask"]
        counted = jax.device_get(count_batch(codes, mask))
        # float64, since float32 counts are exact only up to 2²⁴ tokens
        tokens = tokens + float(counted.tokens)
        ones, pairs = ones + counted.ones.astype(np.float64), pairs + counted.pairs.astype(np.float64)
        if complete:
            packed = np.packbits(codes[mask].reshape(-1, codes.shape[-1]), axis=-1)
            seen.update(row.tobytes() for row in np.unique(packed, axis=0))
            complete = len(seen) <= DISTINCT_LIMIT
        images += int(mask.sum())
        progress(int(mask.sum()))
    if not images:
        raise ScoreError("there are no images to encode")
    statistics = BitStatistics(
        tokens=jnp.float32(1),
        ones=jnp.asarray(ones / tokens, jnp.float32),
        pairs=jnp.asarray(pairs / tokens, jnp.float32),
    )
    values = {name: np.asarray(value) for name, value in statistics.compute().items()}
    k = len(values["bit_mean"])
    scores = [
        Score(key="bit_entropy", name="mean entropy of a bit", value=float(values["bit_entropy"]), unit="bits", better="higher"),
        Score(key="dead_bits", name="dead bits", value=float(values["dead_bits"]), better="lower"),
        Score(
            key="bit_correlation", name="mean absolute correlation of two bits", value=float(values["bit_correlation"]),
            better="lower",
        ),
    ]  # fmt: skip
    skipped = {}
    if complete:
        most = min(2 ** min(k, 64), tokens)
        scores.append(
            Score(
                key="token_usage",
                name="distinct tokens, as a share of the possible ones",
                value=len(seen) / most,
                better="higher",
            )
        )
    else:
        skipped["distinct tokens"] = f"more than {DISTINCT_LIMIT} were seen"
    curves = {"bit_mean": values["bit_mean"].tolist()}
    if k <= MATRIX_LIMIT:
        curves["bit_correlation"] = np.asarray(statistics.correlation()).round(4).tolist()
    return EvaluationResult(
        settings=settings
        | {"images": images, "tokens": int(tokens), "bits_per_token": k, "distinct_tokens": len(seen)},
        scores=scores,
        skipped=skipped,
        curves=curves,
    )
