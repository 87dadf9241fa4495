"""Configurations round-trip, and errors name what is wrong."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from binlatent import config as config_lib
from binlatent.errors import UserError
from tests import tiny

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted(config_lib.files._flatten(config_lib.defaults()))


def check(config):
    """Builds everything from a config; UserError is the only exception allowed."""
    try:
        config_lib.check(config)
    except UserError as error:
        assert str(error)


def test_a_config_file_round_trips(tmp_path):
    config = tiny.config("images.npz")
    config_lib.write(tmp_path / "config.json", config)
    assert json.loads((tmp_path / "config.json").read_text())["format"] == 3
    assert config_lib.differences(config_lib.read(tmp_path / "config.json"), config) == {}


def test_keys_that_came_later_have_their_defaults(tmp_path):
    config = tiny.config()
    config_lib.write(tmp_path / "config.json", config)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["sampling"]["steps"], values["mesh"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert config_lib.differences(config_lib.read(tmp_path / "config.json"), config) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[1, 2]", "a JSON object is expected, not list"),
        ("3", "a JSON object is expected, not int"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "binlatent 0.1"),
        ('{"seed": 0, "data": {}}', "binlatent 0.1"),
        ('{"format": 2}', "format 2, written by another version"),
        ('{"format": "x"}', "format 'x'"),
        ('{"format": 3, "data": 3}', "data is 3"),
        ('{"format": 3, "seed": {}}', "seed is {}"),
        ('{"format": 3, "daat": {}}', "did you mean data"),
    ],
)
def test_a_work_directory_that_cannot_be_read_is_refused(tmp_path, text, words):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        config_lib.read(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["prior.widht=3"], "did you mean prior.width"),
        (["prior.width"], "write --config.prior.width=VALUE"),
        (["prior.width=wide"], "an integer is expected"),
        (["prior.width=3.5"], "an integer is expected"),
        (["prior_optimizer.learning_rate=fast"], "a number is expected"),
        (["prior_optimizer.learning_rate=1e999"], "learning_rate is inf: a number is expected"),
        (["data.flip=2"], "True or False is expected"),
        (["autoencoder.channel_multipliers=3"], "a tuple is expected"),
        (["prior.dtype=floaty"], "dtype is 'floaty'"),
        (["prior.dtype=int32"], "dtype is 'int32'"),
        (["prior.architecture=unet"], "'unet'"),
        (["seed=-1"], "seed is -1: an integer from 0 to 4294967295"),
        (["seed=4294967296"], "seed is 4294967296"),
        (["prior_objective.label_dropout=2.0"], "label_dropout is 2.0: a number from 0 to 1"),
        (["mesh.fsdp=3"], "does not fit 8 devices"),
        (["sampling.temperature=0.0"], "temperature is 0.0"),
        (["sampling.posterior=exact"], "exact"),
        (["prior.mlp_ratio=0.0"], "mlp_ratio is 0.0"),
        (["prior_optimizer.learning_rate=-1.0"], "learning_rate is -1.0: 0 or more"),
        (["prior_objective.weighting=balanced"], "set prior.components to 1"),
    ],
)
def test_wrong_overrides_are_named(overrides, words):
    with pytest.raises(UserError) as refused:
        config_lib.check(config_lib.override(tiny.config(), overrides))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("", "get_config"),
        ("def get_config(:", "SyntaxError"),
        ("def get_config(): pass", "returned NoneType"),
        ("def get_config(): return {}", "returned dict"),
        ("def get_config(): raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("def get_config(): return 1 / 0", "ZeroDivisionError"),
        ("def get_config(): raise SystemExit(3)", "SystemExit"),
        ("import no_such_module", "no_such_module"),
        ("from ml_collections import ConfigDict\nget_config = ConfigDict", "config without"),
    ],
)
def test_a_failing_config_file_is_named(tmp_path, program, words):
    path = tmp_path / "mine.py"
    path.write_text(program)
    with pytest.raises(UserError) as refused:
        config_lib.check(config_lib.load(str(path)))
    assert words in str(refused.value)


def test_an_unknown_key_of_a_network_is_named_with_the_nearest():
    config = tiny.config()
    with config.unlocked():
        config.prior.widht = 3
    with pytest.raises(UserError, match="config section 'prior' has no key 'widht'; did you mean width"):
        config_lib.check(config)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KEYS), JSON)
def test_a_config_file_with_any_value_is_read_or_refused(tmp_path_factory, key, value):
    values = {"format": 3} | config_lib.to_json(tiny.config())
    *sections, name = key.split(".")
    target = values
    for section in sections:
        target = target[section]
    target[name] = value
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_text(json.dumps(values))
    try:
        config = config_lib.read(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        check(config)


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_a_config_file_with_any_content_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_text(json.dumps(content | {"format": 3} if isinstance(content, dict) else content))
    try:
        check(config_lib.read(path))
    except UserError as error:
        assert str(path) in str(error)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*KEYS, "data", ""]), st.sampled_from(["=", "", "=="]), st.text(max_size=20))
@example("prior.dtype", "=", "0:")
@example("prior.dtype", "=", "01")
def test_any_override_is_accepted_or_refused(key, separator, text):
    try:
        config = config_lib.override(tiny.config(), [key + separator + text])
    except UserError as error:
        assert str(error)
    else:
        check(config)
