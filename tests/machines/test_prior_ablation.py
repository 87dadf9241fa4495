"""How arms of the ablation of the prior are written."""

import pytest

from binlatent.errors import UserError
from binlatent.machines import prior_ablation
from binlatent.machines.prior_ablation import split_overrides


def test_a_value_may_have_commas_in_it():
    arm = "config=release:image_folder:32,small,prior.width=64,data.path=a,b"
    assert split_overrides(arm) == ["config=release:image_folder:32,small", "prior.width=64", "data.path=a,b"]
    assert split_overrides("prior.components=1") == ["prior.components=1"] and split_overrides("") == []


def test_every_arm_and_seed_is_checked_before_the_first_is_trained(trained, tmp_path, capsys):
    call = ["--workdir", str(trained), "--out", str(tmp_path / "arms"), "--arm", "right"]
    with pytest.raises(UserError, match=r"prior\.widht"):
        prior_ablation.main([*call, "--arm", "wrong:prior.widht=3"])
    with pytest.raises(SystemExit):
        prior_ablation.main([*call, "--seeds", "0,x"])
    assert "argument --seeds: invalid numbers value: '0,x'" in capsys.readouterr().err
    assert not (tmp_path / "arms").exists()
