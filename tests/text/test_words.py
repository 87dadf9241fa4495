import pytest

from binlatent.errors import UserError
from binlatent.text.options import TextOptions
from binlatent.text.words import BYTES, WORDS, WordEncoder, split

CAPTIONS = ["a red cat", "A red dog!", "a cat", "ein Käse"]


def test_common_words_have_numbers_and_others_are_spelt():
    encoder = WordEncoder.of(CAPTIONS, length=20, words=3)
    assert encoder.record["words"] == ["a", "cat", "red"]
    made = encoder.encode(["a red ox", "Katze"])
    assert made.tokens[0, : made.mask[0].sum()].tolist() == [WORDS, WORDS + 2, BYTES + ord("o"), BYTES + ord("x")]
    assert bytes((made.tokens[1, : made.mask[1].sum()] - BYTES).tolist()).decode() == "katze"
    assert made.tokens.max() < encoder.record["vocabulary"] == WORDS + 3
    assert WordEncoder(encoder.record).encode(CAPTIONS).tokens.tolist() == encoder.encode(CAPTIONS).tokens.tolist()


def test_case_and_punctuation_and_any_script():
    assert split("A Red—dog!") == ["a", "red", "—", "dog", "!"]
    assert split("ﬁne") == ["fine"]
    encoder = WordEncoder.of(CAPTIONS, length=64, words=100)
    made = encoder.encode(["日本 🙂", "\u200b"])
    assert made.mask.any(1).all()  # of nothing visible one token is left
    assert made.tokens[0, : made.mask[0].sum()].min() > 0


def test_length_is_that_of_the_longest_caption_and_limited():
    assert WordEncoder.of(CAPTIONS, length=64, words=100).record["length"] == 4
    short = WordEncoder.of(CAPTIONS, length=2, words=100)
    assert short.encode(CAPTIONS).tokens.shape == (4, 2)
    assert short.cut(CAPTIONS) == ["a red cat", "A red dog!"]
    assert WordEncoder.of([], length=5, words=100).encode(["abc"]).mask.sum() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "clap:x"}, "text.encoder is 'clap:x'"),
        ({"encoder": "clip:"}, "text.encoder is 'clip:'"),
        ({"length": 0}, "text.length is 0"),
        ({"words": 70_000}, "text.words is 70000"),
        ({"use": "both"}, "text.use is 'both'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        TextOptions(**options)
