"""How well samples fit their prompts, as a pretrained CLIP sees it.

    python -m binlatent.machines.clip_score runs/mine --clip openai/clip-vit-base-patch32 --guidance 0,1,2

Samples are made of captions of validation images, one each, and compared with them:

* clip_score: the mean of 100 · max(cosine similarity, 0) of an image and its prompt (Hessel et al., 2021, without their
  factor of 2.5).
* retrieval: the share of images to which, of 100 prompts, their own is the nearest; equal prompts count as their own.

Both are given for the validation images themselves as well. CLIP sees images enlarged to the size that it takes. The weights are
a folder, or a name at Hugging Face; without them nothing is scored (extra `text`).
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from binlatent.console import decimals, say, script
from binlatent.data.loader import captioned_images
from binlatent.errors import UserError
from binlatent.evaluate.evaluation import Evaluation
from binlatent.images import to_uint8
from binlatent.text.pretrained import FILES, from_transformers

BATCH = 64
CHOICES = 100  # prompts among which an image's own is looked for


def load_clip(name: str) -> tuple[Any, Any]:
    """CLIP and its processor.

    Raises:
      UserError: see `from_transformers`.
    """
    advice = f"Put {FILES} and preprocessor_config.json into a folder and give that. No CLIP score is computed without."
    return from_transformers("CLIPModel", "CLIPProcessor", name, what="CLIP", wanted_by="a CLIP score", advice=advice)


def embed(clip: tuple[Any, Any], images: np.ndarray, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Directions (n, d) of images uint8 (n, h, w, c) and of their prompts, of length 1."""
    import torch

    model, processor = clip
    cut = {"truncation": True, "max_length": model.config.text_config.max_position_embeddings}
    found = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        pictures = list(np.repeat(part, 3, -1) if part.shape[-1] == 1 else part)
        words = list(prompts[start : start + BATCH])
        inputs = processor(text=words, images=pictures, return_tensors="pt", padding=True, **cut)
        with torch.inference_mode():
            output = model(**inputs)
        found.append((output.image_embeds.numpy(), output.text_embeds.numpy()))
    image, text = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return tuple(x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (image, text))


def score(clip: tuple[Any, Any], images: np.ndarray, prompts: Sequence[str]) -> dict[str, float]:
    """`clip_score` and `retrieval` of images uint8 (n, h, w, c) and their prompts."""
    image, text = embed(clip, images, prompts)
    right = []
    for start in range(0, len(image), CHOICES):
        part = slice(start, start + CHOICES)
        nearest = (image[part] @ text[part].T).argmax(-1)
        words = prompts[part]
        right += [words[i] == words[j] for i, j in enumerate(nearest)]
    return {
        "clip_score": float(100 * np.maximum((image * text).sum(-1), 0).mean()),
        "retrieval": float(np.mean(right)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument("--clip", required=True, help="a folder, or a name at Hugging Face")
    parser.add_argument("--guidance", type=decimals, default="0,1,2")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    clip, evaluation = load_clip(args.clip), Evaluation.open(args.workdir)
    splits = evaluation.splits
    if not splits.captions:
        raise UserError(f"{args.workdir}: its data have no captions (data.captions)")
    images, prompts = captioned_images(splits.validation, evaluation.data, args.num)
    say("| images | guidance | clip_score | retrieval |\n|---|---|---|---|")

    def row(what: str, guidance: str, images: np.ndarray) -> None:
        found = score(clip, images, prompts)
        say(f"| {what} | {guidance} | {found['clip_score']:.2f} | {found['retrieval']:.3f} |")

    row("validation", "", images)
    for guidance in args.guidance:
        options = {"guidance": guidance, "steps": args.steps}
        samples = evaluation.pipeline.sample(seed=args.seed, num=len(prompts), prompts=prompts, **options)
        row("samples", f"{guidance:g}", to_uint8(samples))


if __name__ == "__main__":
    script(main)
