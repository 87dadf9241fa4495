"""Any text as the value of any option: it is taken, or refused with status 2 by a message that names option and value."""

import argparse
import contextlib
import functools
import io
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from binlatent import config as config_lib
from binlatent.cli import labels, train
from binlatent.cli import main as cli
from binlatent.cli.sink import ImageSink
from binlatent.editing.known import box
from binlatent.errors import UserError

# Every text that an argument can be: no NUL; bytes that are not UTF-8 are surrogates.
ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12)
LIKE_NUMBERS = st.text("0123456789.,-+e_:/ naif%=", max_size=8)
ODD = (
    "",
    " ",
    "-1",
    "nan",
    "1,",
    ",",
    "1e999",
    "9" * 5000,
    "a" * 300,
    "٣",
    "½",
    "x://y",
    "..",
    "\udc80",
    "{}",
    "%s",
    "a\nb",
)
TEXT = st.one_of(ANY, LIKE_NUMBERS, st.sampled_from(ODD))


@pytest.fixture(scope="module", autouse=True)
def _one_parser():
    """Made once rather than for every command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_parser", functools.cache(cli._parser))
        yield


def _options() -> list[tuple[str, str, list[str]]]:
    """(command, option, the other arguments that the command needs)."""
    found = []
    commands = next(a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    for command, parser in commands.choices.items():
        for action in parser._actions:
            needed = [a for a in parser._actions if a.required and a is not action]
            rest = [f"{a.option_strings[0]}=missing" if a.option_strings else next(iter(a.choices)) for a in needed]
            if action.option_strings and "--help" not in action.option_strings:
                if command == "train" and action.dest != "stage":
                    rest = [item.replace("--stage=missing", "--stage=prior") for item in rest]
                found.append((command, action.option_strings[0], rest))
    return found


OPTIONS = _options()
# Of these, what is done before the work directory is looked for, which is not there, takes no time and writes nothing.
READING = [
    o for o in OPTIONS if o[0] in ("sample", "reconstruct", "edit", "evaluate", "sweep", "export", "info", "pack")
]


def squashed(text: str) -> str:
    """Without what changes where a text is taken as a path or a number."""
    return re.sub(r"[\s/.]|\\n", "", text)


def shown(text: str, message: str) -> bool:
    """Whether the message has the text or one of its parts between commas, as it is or as Python shows it."""
    pieces = [text, *text.split(",")]
    if not all(piece.strip() for piece in pieces) and ("it is empty" in message or "''" in message):
        return True
    parts = [part for piece in pieces for part in (piece, piece.strip()) if part]
    return not parts or any(squashed(form(part))[:79] in squashed(message) for part in parts for form in (str, repr))


def outcome(function, *arguments):
    """(None or the exit status, what was printed or raised as a UserError)."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            function(*arguments)
    except SystemExit as stopped:
        return stopped.code, printed.getvalue()
    except UserError as error:
        return 2, str(error)
    return None, ""


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(OPTIONS), TEXT)
@example(next(o for o in OPTIONS if o[0] == "sample" and o[1] == "--num"), "--")
def test_any_text_is_parsed_or_refused_by_name(option, text):
    command, name, rest = option
    status, message = outcome(cli.parse, [command, f"{name}={text}", *rest])
    assert status in (None, 2)
    if status:
        assert name.strip("-").replace("_", " ") in message.replace("_", " ") and shown(text, message), message
        assert "Traceback" not in message and "<lambda>" not in message


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(READING), TEXT)
def test_any_text_ends_a_command_with_a_message(tmp_path_factory, option, text):
    command, name, rest = option
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        status, message = outcome(cli.main, [command, f"{name}={text}", *rest])
    assert status == 2
    assert shown(text, message) or "missing" in message, message
    assert "Traceback" not in message


@settings(max_examples=200, deadline=None)
@given(TEXT)
@example("2,cat")
def test_any_labels_are_classes_or_named(text):
    try:
        found = labels.parse_labels(text, 3, ("cat", "dog", "2"))
    except UserError as error:
        assert "--labels" in str(error) and shown(text, str(error))
    else:
        assert found and all(0 <= label < 3 for label in found)


@settings(max_examples=200, deadline=None)
@given(TEXT)
@example("0,0.5,1,1")
def test_any_box_is_a_mask_or_named(text):
    try:
        mask = box(text, (8, 6))
    except ValueError as error:  # `edit` adds the option's name
        assert repr(text) in str(error)
    else:
        assert mask.shape == (8, 6) and mask.dtype == bool and mask.any()


@settings(max_examples=100, deadline=None)
@given(TEXT)
@example("3:4")
def test_any_steps_to_profile_are_two_steps_or_named(text):
    try:
        first, last = train._steps(text)
    except UserError as error:
        assert "--profile" in str(error) and shown(text, str(error))
    else:
        assert 0 <= first <= last


@settings(max_examples=150, deadline=None)
@given(TEXT)
@example("a.PNG")
@example("\ud800")
def test_any_place_is_written_or_named(tmp_path_factory, text):
    place = f"{tmp_path_factory.mktemp('out')}/{text}"
    try:
        with ImageSink(place) as sink:
            sink.expect(1, (2, 2, 1))
            sink.add(np.zeros((1, 2, 2, 1), np.uint8))
    except (UserError, OSError) as error:  # OSError: of the command line, `main` names the path
        assert shown(place, str(error))
    else:
        assert sink.path.exists()


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_any_config_is_found_or_named(tmp_path_factory, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        try:
            config_lib.load(text)
        except (UserError, OSError) as error:
            assert shown(text.partition(":")[0], str(error))
