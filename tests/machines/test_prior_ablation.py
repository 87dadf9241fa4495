"""How arms of the ablation of the prior are written."""

from binlatent.machines.prior_ablation import split_overrides


def test_a_value_may_have_commas_in_it():
    arm = "config=release:image_folder:32,small,prior.width=64,data.path=a,b"
    assert split_overrides(arm) == ["config=release:image_folder:32,small", "prior.width=64", "data.path=a,b"]
    assert split_overrides("prior.components=1") == ["prior.components=1"] and split_overrides("") == []
