"""`--labels`: numbers, names, all classes, none; and what is reported."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from binlatent.cli.labels import choose_labels, parse_labels
from binlatent.errors import UserError

NAMES = ("cat", "dog", "10", "a b")


@dataclasses.dataclass
class Model:
    """The attributes of a pipeline that `choose_labels` uses."""

    num_classes: int
    class_names: tuple[str, ...] = ()
    condition_shape: tuple[int, ...] = ()

    @property
    def prior(self) -> Any:
        return SimpleNamespace(metadata=vars(self))


@pytest.mark.parametrize(
    ("text", "labels"),
    [("cat,dog", [0, 1]), ("dog, 0 ,dog", [1, 0, 1]), ("3", [3]), ("a b", [3]), ("10", [2]), ("002", [2])],
)
def test_numbers_and_names(text, labels):
    assert parse_labels(text, 4, NAMES) == labels


def test_a_number_is_a_class_number_before_it_is_a_name():
    assert parse_labels("1", 3, ("2", "3", "1")) == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [("cta", "did you mean cat"), ("4", "0 to 3 or class names"), ("cat,", "'' is not a class"), ("Dog!", "mean dog")],
)
def test_no_such_class(text, words):
    with pytest.raises(UserError, match=words):
        parse_labels(text.replace("Dog!", "dog!"), 4, NAMES)


def test_all_classes_or_none_or_some(capsys):
    model = Model(4, NAMES)
    assert choose_labels(None, model, 1.5) == [0, 1, 2, 3]
    assert choose_labels("dog,cat", model, 1.5) == [1, 0]
    printed = capsys.readouterr()
    assert printed.out == "labels: 1 (dog), 0 (cat)\n" and not printed.err
    assert choose_labels("none", model, 0.0) is None
    assert not capsys.readouterr().err
    assert choose_labels("None", model, 1.5) is None
    assert "guidance 1.5 has no effect: the labels are none" in capsys.readouterr().err


def test_models_without_classes(capsys):
    assert choose_labels(None, Model(0), 0.0) is None
    assert not capsys.readouterr().err
    assert choose_labels(None, Model(0), 2.0) is None
    assert "guidance 2 has no effect: no condition is given" in capsys.readouterr().err
    with pytest.raises(UserError, match="trained without classes"):
        choose_labels("3", Model(0), 0.0)
    assert choose_labels(None, Model(0, condition_shape=(7,)), 0.0, given=True) is None
    assert not capsys.readouterr().err
    assert choose_labels(None, Model(0, condition_shape=(7,)), 0.0) is None
    assert "null condition" in capsys.readouterr().err
