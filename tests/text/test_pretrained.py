"""CLIP and T5 by way of `transformers`: random weights in the real architectures, compared with a call of our own."""

import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.text.named import open_encoder, recorded_encoder
from binlatent.text.options import TextOptions

CAPTIONS = ["a red cat", "dog", "a red dog and a cat and a dog and a cat"]


def save(folder, kind, seed=0):
    """A tiny encoder with its tokenizer in a folder, as `from_pretrained` wants it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    import tokenizers

    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "and", "cat", "dog", "red"]
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(seed)
    if kind == "clip":
        config = transformers.CLIPTextConfig(
            vocab_size=9, hidden_size=8, intermediate_size=16, projection_dim=6, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=10, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        )  # fmt: skip
        net = transformers.CLIPTextModelWithProjection(config)
    else:
        net = transformers.T5EncoderModel(
            transformers.T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
        )
    net.eval().save_pretrained(folder)
    return net


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_it_gives_what_the_network_gives(tmp_path, kind):
    net = save(tmp_path, kind)
    import torch

    encoder = open_encoder(TextOptions(encoder=f"{kind}:{tmp_path}", length=10))
    assert (encoder.record["token_width"], encoder.record["vector_width"]) == (8, 6 if kind == "clip" else 8)
    made = encoder.encode(CAPTIONS)
    assert made.tokens.shape == (3, 10, 8) and made.tokens.dtype == np.float16
    assert made.mask.sum(1).tolist() == [5, 3, 10]
    assert encoder.cut(CAPTIONS) == CAPTIONS[2:]
    ids = torch.tensor([[1, 4, 8, 6, 2]])  # <s> a red cat </s>, without padding
    with torch.inference_mode():
        found = net(input_ids=ids)
    np.testing.assert_allclose(made.tokens[0, :5], found.last_hidden_state[0].numpy(), atol=3e-3)
    vector = found.text_embeds[0] if kind == "clip" else found.last_hidden_state[0].mean(0)
    np.testing.assert_allclose(made.vector[0], vector.numpy(), atol=3e-3)
    alone = encoder.encode(CAPTIONS[:1])
    np.testing.assert_allclose(alone.tokens[0], made.tokens[0], atol=3e-3)
    pooled = open_encoder(TextOptions(encoder=f"{kind}:{tmp_path}", length=10, use="pooled"))
    assert pooled.record["token_width"] == 0 and pooled.encode(CAPTIONS).tokens is None


def test_other_weights_are_another_encoder(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    save(tmp_path / "a", "clip"), save(tmp_path / "b", "clip", seed=1)
    a, b = (TextOptions(encoder=f"clip:{tmp_path / name}") for name in "ab")
    record = open_encoder(a).record
    assert recorded_encoder(record, a).record == record
    with pytest.raises(UserError, match=r"trained with the text encoder clip \(weights"):
        recorded_encoder(record, b)


def test_missing_weights_are_named(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (str(tmp_path), "nobody/has-this-model"):
        with pytest.raises(UserError, match=r"no clip text encoder .* Put config\.json, model\.safetensors and"):
            open_encoder(TextOptions(encoder=f"clip:{name}"))
    save(tmp_path, "t5")
    with pytest.raises(UserError, match="clip text encoder"):
        open_encoder(TextOptions(encoder=f"clip:{tmp_path}"))


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"needs 'torch': pip install 'binlatent\[text\]'"):
        open_encoder(TextOptions(encoder="clip:openai/clip-vit-base-patch32"))
