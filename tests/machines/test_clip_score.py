"""CLIP scores: their arithmetic, with a CLIP that is made up, and the real architecture with random weights."""

import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.machines import clip_score


def test_scores_are_cosines_and_retrieval_is_among_the_prompts(monkeypatch):
    image = np.eye(4)[[0, 1, 2, 3]]
    text = np.eye(4)[[0, 1, 3, 2]]
    monkeypatch.setattr(clip_score, "embed", lambda clip, images, prompts: (image, text))
    found = clip_score.score((None, None), np.zeros((4, 8, 8, 1), np.uint8), ["a", "b", "c", "d"])
    assert found == {"clip_score": 50.0, "retrieval": 0.5}
    same = clip_score.score((None, None), np.zeros((4, 8, 8, 1), np.uint8), ["a", "b", "c", "c"])
    assert same["retrieval"] == 1.0  # an equal prompt counts as its own
    monkeypatch.setattr(clip_score, "embed", lambda clip, images, prompts: (image, -image))
    assert clip_score.score((None, None), np.zeros((4, 8, 8, 1), np.uint8), list("abcd"))["clip_score"] == 0.0


def test_without_weights_nothing_is_scored(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"needs 'torch': pip install 'binlatent\[text\]'"):
        clip_score.load_clip(str(tmp_path))


def test_missing_weights_are_named(monkeypatch, tmp_path):
    pytest.importorskip("torch"), pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="No CLIP score is computed without"):
        clip_score.load_clip(str(tmp_path))


def test_a_real_clip_of_random_weights_gives_directions(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tests.text.test_pretrained import save

    save(tmp_path, "clip")  # for its tokenizer
    text = {
        "vocab_size": 9,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text |= {"max_position_embeddings": 10, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    clip = clip_score.load_clip(str(tmp_path))
    image, words = clip_score.embed(clip, images, ["a red cat", "dog", "a dog and a cat and a dog and a cat"])
    for found in (image, words):
        assert found.shape == (3, 6)
        np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    again, _ = clip_score.embed(clip, images[::-1], ["dog"] * 3)
    np.testing.assert_allclose(again[::-1], image, atol=1e-5)
