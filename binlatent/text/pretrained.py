"""CLIP's and T5's text encoders, frozen, loaded with `transformers` (extra `text`, which includes PyTorch)."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from binlatent.errors import UserError
from binlatent.files import digest
from binlatent.text.encoder import Encoded

BATCH = 64  # captions in one call of the network
FILES = "config.json, model.safetensors and the tokenizer's files (tokenizer.json, or vocab.json and merges.txt)"


class PretrainedEncoder:
    """A text encoder of `transformers`; see `text.encoder.TextEncoder`.

    CLIP gives the last layer's features and the projected vector that it compares with images; T5 its features and their
    mean over the unmasked tokens. Neither is normalised.
    """

    def __init__(self, record: dict[str, Any], kind: str, tokenizer: Any, model: Any):
        self.record = record
        self._kind, self._tokenizer, self._model = kind, tokenizer, model

    @classmethod
    def load(cls, kind: str, name: str, *, length: int, use: str) -> "PretrainedEncoder":
        """Reads an encoder from a local folder, from the cache of `transformers`, or from Hugging Face.

        Args:
          kind: `clip` or `t5`.
          name: a folder, or a name such as openai/clip-vit-base-patch32.
          length: most tokens of a caption; CLIP takes at most 77.
          use: `tokens`, or `pooled` for the vector alone.

        Raises:
          UserError: a package is missing, or the weights cannot be found or fetched.
        """
        network = {"clip": "CLIPTextModelWithProjection", "t5": "T5EncoderModel"}[kind]
        model, tokenizer = from_transformers(
            network,
            "AutoTokenizer",
            os.path.expanduser(name),
            what=f"{kind} text encoder",
            wanted_by=f"text.encoder='{kind}:{name}'",
            advice=f"Put {FILES} of it into a folder and set text.encoder='{kind}:FOLDER'.",
        )
        longest = getattr(model.config, "max_position_embeddings", length)
        weights = (
            f"{key} {np.asarray(value.shape)}".encode() + _bytes(value) for key, value in model.state_dict().items()
        )
        width = model.config.hidden_size if kind == "clip" else model.config.d_model
        record = {
            "encoder": kind,
            "weights": digest(*weights),
            "use": use,
            "length": min(length, longest),
            "token_width": width if use == "tokens" else 0,
            "vector_width": model.config.projection_dim if kind == "clip" else width,
        }
        return cls(record, kind, tokenizer, model)

    def encode(self, captions: Sequence[str]) -> Encoded:
        parts = [self._batch(list(captions[i : i + BATCH])) for i in range(0, len(captions), BATCH)]
        tokens, mask, vector = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if self.record["use"] == "pooled":
            return Encoded(vector=vector)
        return Encoded(tokens=tokens, mask=mask, vector=vector)

    def _batch(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import torch

        length = self.record["length"]
        words = self._tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        words = {name: words[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            found = self._model(**words)
            features = found.last_hidden_state
            if self._kind == "clip":
                vector = found.text_embeds
            else:
                weights = words["attention_mask"][..., None].to(features.dtype)
                vector = (features * weights).sum(1) / weights.sum(1)
        mask = words["attention_mask"].numpy().astype(bool)
        return features.numpy().astype(np.float16), mask, vector.numpy().astype(np.float16)

    def cut(self, captions: Sequence[str]) -> list[str]:
        long = (len(self._tokenizer(caption)["input_ids"]) > self.record["length"] for caption in captions)
        return [caption for caption, cut in zip(captions, long, strict=True) if cut]


def from_transformers(
    network: str, preprocessor: str, name: str, *, what: str, wanted_by: str, advice: str
) -> tuple[Any, Any]:
    """A frozen float32 network of `transformers` and its tokenizer or processor.

    Args:
      network: its class, such as CLIPModel.
      preprocessor: the class of its tokenizer or processor.
      name: a folder, or a name at Hugging Face.
      what: the network's name in messages.
      wanted_by: the setting that needs it, for messages.
      advice: which files to put where.

    Raises:
      UserError: a package is missing, or the weights cannot be found or fetched, or are incomplete.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"{wanted_by} needs {error.name!r}: pip install 'binlatent[text]'.") from error
    transformers.logging.set_verbosity_error()
    try:
        prepare = getattr(transformers, preprocessor).from_pretrained(name)
        model, report = getattr(transformers, network).from_pretrained(
            name, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # of many kinds: no network, no such name, a file that is missing or damaged
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"no {what} {name!r} here, and it could not be fetched ({reason[:200]}). {advice}") from error
    if missing := report["missing_keys"]:
        raise UserError(f"{name} is no {what}: it has no {sorted(missing)[0]} ({len(missing)} weights missing)")
    return model.eval(), prepare


def _bytes(value: Any) -> bytes:
    import torch

    return value.detach().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else str(value.item()).encode()
