"""A person's own text encoder in a Python file."""

import numpy as np
import pytest

from binlatent.errors import UserError
from binlatent.text.encoder import check_record
from binlatent.text.named import open_encoder, recorded_encoder
from binlatent.text.options import TextOptions

GOOD = """
import numpy as np
calls = 0
def encode(captions):
    global calls
    calls += len(captions)
    features = np.zeros((len(captions), 4, 3))
    mask = np.arange(4)[None] < np.array([[min(4, len(c.split()))] for c in captions])
    for i, c in enumerate(captions):
        features[i, : mask[i].sum(), 0] = [len(word) for word in c.split()][:4]
    return features, mask, features.mean(1)
"""
GAVE = "import numpy as np\ndef encode(captions):\n    n = len(captions)\n    return {}"


def write(folder, text, name="own.py"):
    (folder / name).write_text(text)
    return f"{folder / name}:encode"


@pytest.mark.parametrize("use", ["tokens", "pooled"])
def test_it_encodes(tmp_path, use):
    encoder = open_encoder(TextOptions(encoder=write(tmp_path, GOOD), use=use))
    made = encoder.encode(["a red dog", "it"])
    assert made.vector.shape == (2, 3) and made.vector.dtype == np.float16
    assert encoder.record["vector_width"] == 3
    assert encoder.record["token_width"] == (3 if use == "tokens" else 0)
    if use == "tokens":
        assert made.tokens[0, :, 0].tolist() == [1, 3, 3, 0] and made.mask.sum(1).tolist() == [3, 1]
    else:
        assert made.tokens is None


def test_another_file_is_another_encoder(tmp_path):
    first = open_encoder(TextOptions(encoder=write(tmp_path, GOOD)))
    assert recorded_encoder(first.record, TextOptions(encoder=write(tmp_path, GOOD))).record == first.record
    (tmp_path / "elsewhere").mkdir()
    moved = open_encoder(TextOptions(encoder=write(tmp_path / "elsewhere", GOOD)))
    check_record(first.record, moved.record)  # the same file in another folder
    with pytest.raises(UserError, match=r"they differ in use, token_width\)"):
        check_record(first.record, open_encoder(TextOptions(encoder=write(tmp_path, GOOD), use="pooled")).record)
    with pytest.raises(UserError, match=r"trained with the text encoder .*own\.py:encode \(weights"):
        recorded_encoder(first.record, TextOptions(encoder=write(tmp_path, GOOD + "# other\n")))
    with pytest.raises(UserError, match="and this is none"):
        check_record(first.record, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise OSError('x')", "does not run: OSError: x"),
        ("encode = 3", r"defines no function encode\(captions\)"),
        ("def encode(captions): return 1", "failed: TypeError"),
        (GAVE.format("np.zeros((n, 3)), np.ones((n, 4), bool), np.zeros((n, 3))"), "gave shapes"),
        (GAVE.format("np.zeros((n, 4, 3)), np.arange(4)[None].repeat(n, 0) > 1, np.zeros((n, 3))"), "a mask with gaps"),
        (GAVE.format("np.full((n, 4, 3), np.nan), np.ones((n, 4), bool), np.zeros((n, 3))"), "NaN"),
    ],
)
def test_what_goes_wrong_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        open_encoder(TextOptions(encoder=write(tmp_path, text)))


def test_the_file_may_have_dataclasses(tmp_path):
    text = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = 1\n"
    assert open_encoder(TextOptions(encoder=write(tmp_path, GOOD.replace("import", f"{text}import", 1)))).record


def test_no_such_file():
    with pytest.raises(UserError, match=r"no file missing\.py"):
        open_encoder(TextOptions(encoder="missing.py:encode"))
