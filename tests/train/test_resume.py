"""Which runs may be made longer."""

import pytest

from binlatent.errors import UserError
from binlatent.train.optimizer import Optimizer
from binlatent.train.resume import check_length

COSINE = Optimizer(learning_rate=1e-3, schedule="cosine", warmup_steps=10)


def test_a_finished_cosine_run_is_not_made_longer():
    with pytest.raises(UserError, match=r"down to 0, and 200 steps would raise it to 0\.000\d+ again.*--init_from"):
        check_length(COSINE, 100, 100, 200)


def test_a_constant_rate_goes_on_without_a_word(capsys):
    check_length(Optimizer(learning_rate=1e-3, warmup_steps=10), 100, 100, 200)
    check_length(COSINE, 50, 100, 100)
    assert capsys.readouterr().err == ""


def test_a_change_on_the_way_is_told(capsys):
    check_length(COSINE, 50, 100, 200)
    assert "num_steps was 100 and is 200 now: the learning rate changes from" in capsys.readouterr().err
