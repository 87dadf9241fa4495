"""From captions to pictures, end to end: a tiny model of captioned images, trained, resumed, and asked in words."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

import binlatent
from binlatent import config as config_lib
from binlatent.cli.main import main
from binlatent.errors import UserError
from binlatent.experiment import Experiment
from binlatent.train.metrics import read_records
from tests import tiny
from tests.train.test_loop import assert_equal, state_of


@pytest.fixture(scope="module")
def model(captioned):
    return binlatent.load(captioned)


def without_prior(captioned, folder):
    return shutil.copytree(captioned, folder, ignore=shutil.ignore_patterns("prior", "samples"))


def test_images_are_a_function_of_seed_place_and_prompt(model):
    prompts = ["a red square", "blue, square"]
    few = model.sample(seed=3, num=4, prompts=prompts, steps=2)
    many = model.sample(seed=3, num=20, prompts=prompts, steps=2)
    np.testing.assert_allclose(few, many[:4], atol=1e-5)
    single = model.sample(seed=3, num=4, prompts=prompts[0], steps=2)
    np.testing.assert_allclose(few[::2], single[::2], atol=1e-5)
    given = model.conditions(prompts=prompts)
    np.testing.assert_allclose(few, model.sample(seed=3, num=4, condition=given, steps=2), atol=1e-5)
    thousands = [f"a {i} square" for i in range(10_000)]
    assert model.sample(seed=3, num=2, prompts=thousands, steps=2).shape == (2, 8, 8, 1)
    assert model.sample(seed=3, num=1, prompts="ein Quadrat 🟥 日本", steps=2).shape == (1, 8, 8, 1)


def test_the_prompt_reaches_the_network(model):
    code = np.random.default_rng(0).random((1, 4, 4, 4)) < 0.5
    logits = [
        model.denoise(code, 0.5, condition=model.conditions(prompts=prompt) if prompt else None)
        for prompt in ("a red square", "a blue square", None)
    ]
    assert all(np.abs(logits[i] - logits[j]).max() > 1e-6 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_negative_prompts_are_led_away_from(model):
    call = {"seed": 3, "num": 8, "prompts": "a red square", "steps": 2}
    plain = next(model.sample_batches(**call)).codes
    same = next(model.sample_batches(**call, guidance=4.0, negative_prompts="a red square")).codes
    assert np.array_equal(plain, same)  # led away from itself it stays where it is
    null = next(model.sample_batches(**call, guidance=4.0)).codes
    other = next(model.sample_batches(**call, guidance=4.0, negative_prompts="blue")).codes
    assert (null != other).any()
    with pytest.raises(UserError, match="negative prompts are given without prompts"):
        model.sample(negative_prompts="blue")


def test_long_prompts_are_cut_and_this_is_said(model, capsys):
    length = model.prior.metadata["text"]["length"]
    model.conditions(prompts=["square " * (length + 1), "red"])
    assert f"1 of 2 prompts are longer than the {length} tokens" in capsys.readouterr().err


def test_resumed_ends_bit_equal(captioned, tmp_path):
    config = config_lib.read(captioned / "config.json")
    workdir = without_prior(captioned, tmp_path / "run")
    for steps in (2, 6):
        Experiment.open(workdir, config_lib.override(config, [f"prior_training.num_steps={steps}"])).train("prior")
    assert_equal(state_of(workdir, "prior"), state_of(captioned, "prior"))


@pytest.mark.slow
def test_one_device_and_eight_give_equal_losses(captioned, tmp_path, monkeypatch):
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *a: one)
    monkeypatch.setattr(jax, "local_devices", lambda *a, **k: one)
    workdir = without_prior(captioned, tmp_path / "one")
    Experiment.open(workdir).train("prior")
    old, new = (read_records(w / "prior") for w in (captioned, workdir))
    compared = [(a[name], b[name]) for a, b in zip(old, new, strict=True) for name in a if name.endswith("/loss")]
    assert len(compared) > 3
    np.testing.assert_allclose(*zip(*compared, strict=True), atol=1e-5)


def test_another_encoder_is_refused(captioned, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(captioned, workdir)
    config = config_lib.override(
        config_lib.read(workdir / "config.json"), ["text.words=1", "prior_training.num_steps=8"]
    )
    with pytest.raises(UserError, match="trained with the text encoder own"):
        Experiment.open(workdir, config).train("prior")


def test_the_command_line(captioned, tmp_path, capsys):
    common = ["--workdir", str(captioned), "--steps=2", "--seed=3"]
    reading, writing = os.pipe()  # which can be read only once
    with open(writing, "w", encoding="utf-8") as file:
        file.write("a blue square\n\nsquare, green\n")
    prompts = ["--prompt", "a red square, please", "--prompts", f"/dev/fd/{reading}"]
    main(
        [
            "sample",
            *common,
            *prompts,
            "--num=5",
            "--guidance=1",
            "--negative_prompt=blue",
            "--out",
            str(tmp_path / "out"),
        ]
    )
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names[0] == "000000-a-red-square-please.png" and names[4] == "000004-a-blue-square.png"
    np.savez(tmp_path / "own.npz", images=tiny.images(2))
    (tmp_path / "images").mkdir()
    from binlatent.images import save_image

    save_image(tmp_path / "images" / "a.png", tiny.images(1)[0])
    edit = ["edit", "vary", *common, "--images", str(tmp_path / "images"), "--prompt=red", "--num=2"]
    main([*edit, "--out", str(tmp_path / "edited.png")])
    assert (tmp_path / "edited.png").exists()
    main(["info", "--workdir", str(captioned)])
    assert "texts of up to 3 tokens, 6 words (--prompt)" in capsys.readouterr().out
    main(["sample", *common, "--num=2", "--out", str(tmp_path / "null.npz")])
    assert "without --prompt it samples its null condition" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", " "], "--prompt: it is empty"),
        (["--prompt", "red", "--condition", "x.npy"], "--condition takes the place of prompts"),
        (["--condition", "missing.npy"], "missing.npy: no such file"),
        (["--condition", "CONFIG"], "is no readable .npy or .npz file"),
        (["--prompts", "missing.txt"], "missing.txt: No such file"),
        (["--prompts", "EMPTY"], "holds no sentence"),
        (["--prompts", "BINARY"], "is not UTF-8"),
        (["--negative_prompt", "red"], "negative prompts are given without prompts"),
        (["--labels", "3", "--prompt", "red"], "trained without classes"),
        (["--prompt", "caf\udce9"], "prompt 1 is 'caf\\udce9': text in UTF-8 is expected"),
    ],
)
def test_bad_input_is_named(captioned, tmp_path, capsys, arguments, message):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    files = {"CONFIG": captioned / "config.json", "EMPTY": tmp_path / "empty.txt", "BINARY": tmp_path / "binary.txt"}
    arguments = [str(files.get(argument, argument)) for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "sample",
                "--workdir",
                str(captioned),
                "--steps=2",
                "--num=1",
                "--out",
                str(tmp_path / "x.png"),
                *arguments,
            ]
        )
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_codes_without_the_words_of_their_checkpoint_are_no_matter(captioned):
    """Everything that a prompt needs is in the checkpoint: codes and data may be gone."""
    record = binlatent.load(captioned).prior.metadata["text"]
    assert record["encoder"] == "own" and set(record["words"]) == {"a", "square", ",", "red", "green", "blue"}
    assert json.loads(json.dumps(record)) == record
