"""Scores of samples against real images, for any number of feature networks in one pass of sampling."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from etils import epath
from jax.sharding import Mesh

from binlatent.evaluate.features import FeatureNetwork
from binlatent.evaluate.reference import Reference, sample_of
from binlatent.evaluate.result import EvaluationResult, Score
from binlatent.evaluate.scores import (
    frechet_distance,
    frechet_distance_of_samples,
    inception_score,
    kernel_distance,
    manifold_scores,
)
from binlatent.evaluate.statistics import ScoreError
from binlatent.evaluate.stream import FeatureStream, featurise, resumable


def generation(
    sample: Callable[[int], Iterable[tuple[np.ndarray, np.ndarray | None, int]]],
    *,
    num: int,
    networks: list[FeatureNetwork],
    references: dict[str, Reference],
    mesh: Mesh,
    batch_size: int,
    folder: epath.PathLike,
    settings: dict[str, Any],
    class_names: tuple[str, ...] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> EvaluationResult:
    """Scores `num` samples; an interrupted pass continues from where it was last saved in `folder`.

    Args:
      sample: (i) → batches (images uint8, labels or None, index of the next sample) from sample i on.
      references: by name of the network.
      class_names: names of the labels.

    Raises:
      ScoreError: there are too few samples for any score, or their features are not finite.
    """
    runs = {network.name: featurise(network, mesh, batch_size) for network in networks}
    limit = max(len(reference.stream.sample.index) for reference in references.values())
    streams = resumable(sample, runs, folder=folder, settings=settings, total=num, limit=limit, progress=progress)
    scores, skipped, tables, notes = [], {}, {}, []
    for network in networks:
        stream, reference = streams[network.name], references[network.name]
        network_scores, network_skipped = feature_scores(network, stream, reference)
        scores += network_scores
        skipped |= network_skipped
        width = stream.sample.features.shape[1]
        for what, count in (("samples", stream.count), ("reference_images", reference.stream.count)):
            if count <= width:
                notes.append(
                    f"{network.name}: {count} {what} for {width} features: Fréchet distances are biased upwards; compare only "
                    "with scores of equally many"
                )
        if class_names and (stream.sample.labels >= 0).any() and (reference.stream.sample.labels >= 0).any():
            tables[f"classes ({network.name} features)"] = class_table(network, stream, reference, class_names)
    return EvaluationResult(
        settings=settings
        | {"content": streams[networks[0].name].content, "notes": notes}
        | {
            "references": {
                name: reference.description | {"hash": reference.hash} for name, reference in references.items()
            }
        },
        scores=scores,
        skipped=skipped,
        tables=tables,
    )


def feature_scores(
    network: FeatureNetwork, stream: FeatureStream, reference: Reference
) -> tuple[list[Score], dict[str, str]]:
    """Returns the scores that the features allow, and the reasons for those that are skipped."""
    scores, skipped = [], {}

    def add(key, better, compute, error_kind=""):
        try:
            value, error = compute()
        except ScoreError as problem:
            skipped[network.title(key)] = str(problem)
            return
        names = {"key": f"{network.name}/{key}", "name": network.title(key)}
        scores.append(Score(**names, value=value, error=error, error_kind=error_kind, better=better))

    fake, real = stream.sample.features, sample_of(reference.stream)
    add(
        "frechet_distance",
        "lower",
        lambda: (frechet_distance(stream.moments("pool"), reference.stream.moments("pool")), None),
    )
    if stream.moments("spatial") is not None:
        add(
            "spatial_frechet_distance", "lower",
            lambda: (frechet_distance(stream.moments("spatial"), reference.stream.moments("spatial")), None),
        )  # fmt: skip
    if stream.classes is not None:
        add("inception_score", "higher", lambda: inception_score(stream.classes), "standard deviation over 10 splits")

    def kernel():
        distance = kernel_distance(fake, real)
        return distance.mean, distance.std

    add("kernel_distance", "lower", kernel, "standard deviation over subsets")
    try:
        manifold = manifold_scores(fake, real)
        for key in ("precision", "recall", "density", "coverage"):
            add(key, "higher", lambda key=key: (getattr(manifold, key), None))
    except ScoreError as problem:
        skipped |= {network.title(key): str(problem) for key in ("precision", "recall", "density", "coverage")}
    if network.label_logits and stream.hits is not None and stream.hits[:, 0].sum():
        share = stream.hits[:, 1].sum() / stream.hits[:, 0].sum()
        add("accuracy", "higher", lambda: (float(share), None))
    return scores, skipped


def class_table(
    network: FeatureNetwork, stream: FeatureStream, reference: Reference, class_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """One row per class: its samples against its real images, among the features that were stored."""
    rows = []
    for label, name in enumerate(class_names):
        fake, real = sample_of(stream, label), sample_of(reference.stream, label)
        row: dict[str, Any] = {"class": name, "samples": len(fake), "real": len(real)}
        if min(len(fake), len(real)) >= 2:
            row[network.title("frechet_distance")] = frechet_distance_of_samples(fake, real)
        if min(len(fake), len(real)) > 5:
            manifold = manifold_scores(fake, real)
            row |= {"precision": manifold.precision, "recall": manifold.recall}
        if network.label_logits and stream.hits is not None and label < len(stream.hits) and stream.hits[label, 0]:
            row["accuracy"] = stream.hits[label, 1] / stream.hits[label, 0]
        rows.append(row)
    return rows
