"""Which runs may be made longer."""

import pytest

from binlatent import config as config_lib
from binlatent.errors import UserError
from binlatent.nets.condition import Conditioning
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


def test_the_rate_of_a_second_optimizer_does_not_jump_either():
    config = config_lib.override(config_lib.load("digits"), ["auxiliary_optimizer.schedule=cosine"])
    student = config_lib.build_student_stage(config, (4, 4, 8), Conditioning(num_classes=10), {})
    assert {name: each.schedule for name, each in student.optimizers.items()} == {
        "denoiser": "constant",
        "auxiliary": "cosine",
    }
    config = config_lib.override(
        config, ["autoencoder_loss.adversarial.weight=0.1", "discriminator_optimizer.learning_rate=1e-4"]
    )
    autoencoder = config_lib.build_autoencoder_stage(config)
    expected = {"autoencoder": autoencoder.optimizer, "discriminator": autoencoder.discriminator.optimizer}
    assert autoencoder.optimizers == expected
    with pytest.raises(UserError, match="the run has ended"):
        for optimizer in student.optimizers.values():
            check_length(optimizer, 100, 100, 200)


def test_a_schedule_counts_from_the_first_update(capsys):
    check_length(COSINE, 50, 100, 200, 50)  # which is still to come
    assert capsys.readouterr().err == ""
    check_length(COSINE, 100, 150, 250, 50)
    rate = COSINE.learning_rate_at(100)(50)
    assert f"changes from {rate:.3g} to {COSINE.learning_rate_at(200)(50):.3g} at step 100" in capsys.readouterr().err


def test_a_change_on_the_way_is_told(capsys):
    check_length(COSINE, 50, 100, 200)
    assert "num_steps was 100 and is 200 now: the learning rate changes from" in capsys.readouterr().err
