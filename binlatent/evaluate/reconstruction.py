"""Scores of reconstructions: PSNR, SSIM, L1, LPIPS, and the Fréchet distance to the originals."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from binlatent import images as measures
from binlatent.evaluate.features import FeatureNetwork
from binlatent.evaluate.result import EvaluationResult, Score
from binlatent.evaluate.scores import frechet_distance
from binlatent.evaluate.statistics import ScoreError
from binlatent.evaluate.stream import FeatureStream, featurise
from binlatent.nets.vgg import LPIPS
from binlatent.typing import PyTree

LPIPS_MIN = 16  # pixels; below, VGG16's last stage is empty


def reconstruction(
    reconstruct: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[dict[str, np.ndarray]],
    *,
    networks: list[FeatureNetwork],
    lpips: PyTree | None,
    mesh: Mesh,
    batch_size: int,
    settings: dict[str, Any],
    skipped: dict[str, str],
    progress: Callable[[int], None] = lambda count: None,
) -> EvaluationResult:
    """Scores the reconstructions of a split.

    Args:
      reconstruct: images uint8 (b, h, w, c) → float in [0, 1].
      batches: from the loader, with `image` and `mask`.
      networks: for the Fréchet distances.
      lpips: parameters of `nets.vgg.LPIPS`, or None.
      settings, skipped: the first entries of the result's.

    Raises:
      ScoreError: there are no images, or reconstructions are not finite.
    """
    values: dict[str, list[np.ndarray]] = {"psnr": [], "ssim": [], "l1": [], "lpips": []}
    skipped = dict(skipped)
    runs = {n.name: featurise(n, mesh, batch_size) for n in networks}
    before = {n.name: FeatureStream(total=None, limit=0) for n in networks}
    after = {n.name: FeatureStream(total=None, limit=0) for n in networks}
    functions = {"psnr": jax.jit(measures.psnr), "l1": jax.jit(measures.l1)}
    for batch in batches:
        mask, images = batch["mask"], batch["image"]
        reconstructed = reconstruct(images)
        if not np.isfinite(reconstructed[mask]).all():
            raise ScoreError("reconstructions contain NaN or infinity; the autoencoder's parameters are broken")
        reconstructed = np.round(reconstructed * 255).astype(np.uint8)
        size = min(images.shape[1:3])
        if size >= measures.SSIM_WINDOW:
            functions.setdefault("ssim", jax.jit(measures.ssim))
        else:
            skipped["SSIM"] = f"its window is {measures.SSIM_WINDOW} pixels, images have {size}"
        if lpips is not None and size >= LPIPS_MIN:
            functions.setdefault("lpips", partial(jax.jit(_lpips), lpips))
        elif lpips is not None:
            skipped["LPIPS"] = f"its network needs {LPIPS_MIN} pixels, images have {size}"
        for name, function in functions.items():
            values[name].append(np.asarray(function(images, reconstructed))[mask])
        for name, run in runs.items():
            if mask.any():
                before[name].add(images[mask], run(images[mask]))
                after[name].add(reconstructed[mask], run(reconstructed[mask]))
        progress(int(mask.sum()))
    if not values["psnr"]:
        raise ScoreError("there are no images to reconstruct")

    def score(key, name, better, unit=""):
        numbers = np.concatenate(values[key]).astype(np.float64)
        finite = numbers[np.isfinite(numbers)]  # PSNR is infinite for a perfect reconstruction
        if not len(finite):
            skipped[name] = "every reconstruction equals its image"
            return []
        error = finite.std(ddof=1) / len(finite) ** 0.5 if len(finite) > 1 else None
        kind = "standard error over images"
        value = float(finite.mean())
        return [Score(key=key, name=name, value=value, error=error, error_kind=kind, unit=unit, better=better)]

    psnr = np.concatenate(values["psnr"])
    scores = score("psnr", "PSNR", "higher", "dB")
    scores += score("ssim", "SSIM", "higher") if values["ssim"] else []
    scores += score("l1", "L1", "lower")
    scores += score("lpips", "LPIPS", "lower") if values["lpips"] else []
    for network in networks:
        title = network.title("reconstruction_frechet_distance")
        try:
            distance = frechet_distance(before[network.name].moments("pool"), after[network.name].moments("pool"))
            scores.append(
                Score(key=f"{network.name}/reconstruction_frechet_distance", name=title, value=distance, better="lower")
            )
        except ScoreError as error:
            skipped[title] = str(error)
    settings = settings | {
        "images": len(psnr),
        "unchanged images (left out of PSNR)": int(np.isinf(psnr).sum()),
        "reconstructions": "thresholded code, rounded to uint8",
        "SSIM": measures.SSIM_DEFINITION,
        "feature_networks": [network.description for network in networks],
    }
    if networks:
        settings["content"] = before[networks[0].name].content
    return EvaluationResult(settings=settings, scores=scores, skipped=skipped)


def _lpips(params, a, b):
    a, b = measures.to_float(a), measures.to_float(b)
    if a.shape[-1] == 1:
        a, b = (x.repeat(3, axis=-1) for x in (a, b))
    return LPIPS().apply({"params": params}, a, b)
