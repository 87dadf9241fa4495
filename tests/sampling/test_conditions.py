"""Classes and embeddings that a caller gives; what is refused is in tests/test_pipeline.py too."""

import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.sampling.conditions import conditions, encode_prompts, encoder_of, takes_prompts
from binlatent.text.encoder import Encoded
from binlatent.text.options import TextOptions
from binlatent.text.words import WordEncoder

CLASSES = {"condition_shape": [], "num_classes": 3, "class_names": ["cat", "dog", "2"]}
VECTORS = {"condition_shape": [2], "num_classes": 0}


def given_to(given, metadata):
    """Classes for a model of classes, embeddings for others."""
    return conditions(metadata, **{"embeddings" if metadata["condition_shape"] else "labels": given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1, [1]), ([0, 2], [0, 2]), ("dog", [1]), (["dog", 0], [1, 0]), (np.array([2, 1]), [2, 1]), (np.int64(2), [2])],
)
def test_classes_by_number_and_name(given, expected):
    found = given_to(given, CLASSES).values.label
    assert found.tolist() == expected
    assert found.dtype == np.int32


def test_they_come_in_turn():
    found = given_to([0, 2], CLASSES).rows(np.array([0, 1, 2, 3, 7])).label
    assert found.tolist() == [0, 2, 0, 2, 2]
    assert found.dtype == np.int32
    rows = given_to(np.arange(4, dtype=np.float16).reshape(2, 2), VECTORS).rows(np.array([3, 0])).vector
    assert rows.tolist() == [[2, 3], [0, 1]]
    assert rows.dtype == np.float32


def test_the_null_condition():
    assert given_to(None, CLASSES) is None and given_to(None, VECTORS) is None
    assert given_to("none", CLASSES) is None


def test_a_class_without_names_and_an_imported_model_with_any_number_of_tokens():
    assert given_to([1], {"condition_shape": [], "num_classes": 2}).values.label.tolist() == [1]
    named = {"condition_shape": [], "num_classes": 2, "class_names": None}
    assert given_to([1], named).values.label.tolist() == [1]
    text = {"condition_shape": [0, 2], "num_classes": 0}
    assert given_to(np.zeros((1, 5, 2)), text).values.tokens.shape == (1, 5, 2)
    with pytest.raises(UserError, match=r"\(1, 5, 3\) given, \(n, tokens, 2\) expected"):
        given_to(np.zeros((1, 5, 3)), text)
    mask = np.ones((1, 4), bool)
    with pytest.raises(UserError, match="token_mask has another shape than tokens"):
        given_to({"tokens": np.zeros((1, 5, 2)), "token_mask": mask}, text)


WORDS = WordEncoder.of(["a cat", "a dog"], length=8, words=9)
READS_WORDS = {"condition_shape": [], "num_classes": 0, "text": WORDS.record}
TOKENS = {"condition_shape": [0, 2], "num_classes": 0}


def test_prompts_and_negative_prompts_come_in_turn():
    encoder = encoder_of(READS_WORDS, TextOptions())
    given = [encode_prompts(encoder, prompts) for prompts in (["a cat", "a dog"], "dog")]
    found = conditions(READS_WORDS, texts=given[0], negative=given[1])
    rows, negative = found.rows(np.array([1, 2])), found.negative_rows(np.array([1, 2]))
    assert rows.tokens.tolist() == WORDS.encode(["a dog", "a cat"]).tokens.tolist()
    assert rows.token_mask.tolist() == [[True, True], [True, True]] and rows.tokens.dtype == np.uint16
    assert negative.tokens.tolist() == WORDS.encode(["dog", "dog"]).tokens.tolist()
    assert negative.token_mask.tolist() == [[True, False], [True, False]]
    assert conditions(READS_WORDS, texts=given[0]).negative is None
    with pytest.raises(UserError, match="negative prompts are given without prompts"):
        conditions(READS_WORDS, negative=given[1])


def test_a_pooled_text_is_one_token_of_a_model_that_reads_tokens_only():
    vector, tokens = np.ones((3, 2), np.float16), np.zeros((3, 4, 2), np.float16)
    assert conditions(TOKENS, texts=Encoded(vector=vector)).values.tokens.shape == (3, 1, 2)
    found = conditions(TOKENS, texts=Encoded(tokens=tokens, mask=np.ones((3, 4), bool))).values
    assert found.tokens is tokens and found.token_mask.shape == (3, 4) and found.vector is None
    pooled = {"condition_shape": [2], "num_classes": 0}
    assert conditions(pooled, texts=Encoded(vector=vector)).values.vector is vector


def test_texts_of_another_encoder_are_refused():
    pooled = {"condition_shape": [2], "num_classes": 0}
    tokens = Encoded(
        tokens=np.zeros((1, 4, 2), np.float16), mask=np.ones((1, 4), bool), vector=np.ones((1, 2), np.float16)
    )
    with pytest.raises(UserError, match=r"expects none: text.encoder must be .* text.use='pooled'"):
        conditions(pooled, texts=tokens)
    with pytest.raises(UserError, match=r"vector of shape \(1, 3\) given to a denoiser that expects \(1, 2\)"):
        conditions(pooled, texts=Encoded(vector=np.ones((1, 3), np.float16)))


def test_embeddings_of_several_parts():
    given = {"tokens": np.zeros((2, 3, 2)), "token_mask": np.array([[True, False, False], [True, True, True]])}
    found = conditions(TOKENS, embeddings=given).values
    assert found.tokens.shape == (2, 3, 2) and found.token_mask.tolist() == given["token_mask"].tolist()
    for name, mask in {"bool": np.zeros((2, 3), bool), "int64": np.ones((2, 3), int)}.items():
        with pytest.raises(UserError, match=rf"token_mask is {name} \(2, 3\): bool"):
            conditions(TOKENS, embeddings=given | {"token_mask": mask})
    with pytest.raises(UserError, match="embeddings have vector; this model takes tokens, token_mask"):
        conditions(TOKENS, embeddings=given | {"vector": np.zeros((2, 2))})
    both = {"condition_shape": [2], "num_classes": 2}
    with pytest.raises(UserError, match="conditioned on labels too"):
        conditions(both, embeddings=np.zeros((1, 2)))
    with pytest.raises(UserError, match="conditioned on vectors too"):
        conditions(both, labels=1)


def test_what_a_model_was_not_trained_with_is_refused():
    none, vectors = {"condition_shape": [], "num_classes": 0}, {"condition_shape": [2], "num_classes": 0}
    with pytest.raises(UserError, match="embeddings are given, but this model was trained without any"):
        conditions(none, embeddings=np.zeros((1, 2)))
    with pytest.raises(UserError, match="reads words by itself: give prompts"):
        conditions(READS_WORDS, embeddings=np.zeros((1, 2)))
    with pytest.raises(UserError, match="a prompt is given, but this model was trained without texts"):
        encoder_of(none, TextOptions())
    with pytest.raises(UserError, match="does not say of which text encoder"):
        encoder_of(vectors, TextOptions())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, jnp.bfloat16])
def test_embeddings_of_any_type_of_number(dtype):
    found = given_to(np.ones((1, 2), dtype), VECTORS).values.vector
    assert found.shape == (1, 2) and found.dtype == (dtype if np.dtype(dtype).kind == "f" else np.float32)


@pytest.mark.parametrize(
    ("given", "metadata", "words"),
    [
        (3, CLASSES, r"label 3 is no class: integers from 0 to 2 or names \(cat, dog, 2\) are expected$"),
        (-1, CLASSES, "label -1 is no class"),
        (False, CLASSES, "label False is no class"),
        (1.0, CLASSES, "label 1.0 is no class"),
        ("dgo", CLASSES, "label 'dgo' is no class.*; did you mean dog"),
        ("horse", CLASSES, r"\(cat, dog, 2\) are expected$"),
        ("dog", {"condition_shape": [], "num_classes": 2}, "'dog' is no class: integers from 0 to 1 are expected$"),
        ([], CLASSES, "no labels given"),
        (0, {"condition_shape": [], "num_classes": 0}, "without classes"),
        ([[1.0]], VECTORS, r"shape \(1, 1\) given, \(n, 2\) expected"),
        ([1.0, 2.0], VECTORS, r"shape \(2,\) given"),
        ([[[1.0, 2.0]]], VECTORS, r"shape \(1, 1, 2\) given"),
        ([[1.0, 2.0], [1.0]], VECTORS, "conditions: "),
        (np.zeros((0, 2)), VECTORS, "no conditions given"),
        ([[1.0, np.inf]], VECTORS, "finite numbers"),
        ([["a", "b"]], VECTORS, "finite numbers"),
        ([[True, False]], VECTORS, "type bool given"),
    ],
)
def test_what_cannot_be_is_named(given, metadata, words):
    with pytest.raises(UserError, match=words):
        given_to(given, metadata)


@pytest.mark.parametrize(
    ("metadata", "encoder", "expected"),
    [
        (CLASSES, "own", False),
        (CLASSES, "clip:NAME", False),  # a prior of classes reads no text, whatever its config says
        (VECTORS, "own", False),  # embeddings of nobody knows what
        (VECTORS, "clip:NAME", True),  # the PyTorch release's
        (CLASSES | {"text": {"vocabulary": 9}}, "own", True),
        (CLASSES | {"text": {"token_width": 8}}, "clip:NAME", True),
    ],
)
def test_whether_prompts_are_taken(metadata, encoder, expected):
    assert takes_prompts(metadata, TextOptions(encoder=encoder)) is expected
