"""Converted work directories, starting at the command line."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import binlatent
from binlatent import config as config_lib
from binlatent.checkpoint import load_parts
from binlatent.cli.info import describe
from binlatent.cli.main import main
from binlatent.convert.torch_file import read_state
from binlatent.convert.workdir import to_workdir
from binlatent.diffusion.prediction import evidence
from binlatent.errors import UserError
from binlatent.nets import weights
from tests.convert.release import autoencoder_layout, random_state, save

AE, DEN = "saved_models/binaryae_ema_1000.th", "saved_models/bld_ema_1000.th"


def _hparams(reference, *cases):
    merged = {}
    for case in cases:
        with open(os.path.join(reference, case, "hparams.json")) as file:
            merged |= json.load(file)
    return merged


@pytest.fixture(scope="module")
def both(reference, tmp_path_factory):
    """A work directory of an autoencoder and a class-conditional denoiser."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "h.json").write_text(json.dumps(_hparams(reference, "autoencoder", "denoiser_class")))
    files = [f"--autoencoder={reference}/autoencoder/{AE}", f"--denoiser={reference}/denoiser_class/{DEN}"]
    main(["convert", *files, f"--hparams={folder}/h.json", f"--workdir={folder}/w"])
    return folder / "w"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(24):
        (folder / str(i % 2)).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / str(i % 2) / f"{i}.png")
    return folder


def test_the_library_gives_the_release_s_numbers(both, reference):
    model = binlatent.load(both)
    io = np.load(f"{reference}/autoencoder/io.npz")
    images = io["images"].transpose(0, 2, 3, 1)
    code = model.encode(images)
    np.testing.assert_array_equal(code, io["code"].transpose(0, 2, 3, 1) > 0.5)
    expected = np.clip(io["reconstruction"].transpose(0, 2, 3, 1), 0, 1)
    np.testing.assert_allclose(model.decode(code), expected, atol=1e-4)

    io = np.load(f"{reference}/denoiser_class/io.npz")
    code_t = io["x_t"].reshape(-1, 8, 8, 16) > 0.5
    # the balanced loss taught it leave-one-out log-odds
    schedule = config_lib.build_objective(model.config).schedule
    shift = np.asarray(evidence(schedule(jnp.asarray(io["t"] / 64, jnp.float32)))).reshape(
        -1, *(1,) * (io["logits"].ndim - 1)
    )
    flips = model.denoise(code_t, io["t"] / 64, io["label"])
    np.testing.assert_allclose(flips.reshape(io["logits"].shape), io["logits"] + shift, atol=1e-4)
    flips = model.denoise(code_t, io["t"] / 64)
    np.testing.assert_allclose(flips.reshape(io["logits"].shape), io["logits_unconditional"] + shift, atol=1e-4)


def test_every_command_accepts_it(both, photos, tmp_path, capsys):
    assert "denoiser 165,584" in describe(both)
    sample = ["sample", f"--workdir={both}", "--num=4", "--labels=3,7", "--steps=4", "--guidance=1.5"]
    main([*sample, f"--out={tmp_path}/a.npz"])
    made = np.load(tmp_path / "a.npz")
    assert made["images"].shape == (4, 32, 32, 3) and made["labels"].tolist() == [3, 7, 3, 7]
    main([*sample, "--posterior=plugin", "--last_step=argmax", f"--out={tmp_path}/b.npz"])
    main(["reconstruct", f"--workdir={both}", f"--images={photos}", f"--out={tmp_path}/r.npz"])
    assert "PSNR" in capsys.readouterr().out


def test_balanced_models_sample_alike_with_mixture_and_plugin(both):
    """Up to the last bit of rounding, the two steps are one for such a model: see `Objective.calibrate`."""
    model = binlatent.load(both)
    assert model.config.prior_objective.weighting == "balanced"
    options = {"num": 4, "seed": 3, "labels": [1], "steps": 8, "guidance": 1.0}
    codes = [next(model.sample_batches(**options, posterior=p)).codes for p in ("mixture", "plugin")]
    assert (codes[0] == codes[1]).mean() > 0.99


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A work directory of an autoencoder that compiles fast."""
    pytest.importorskip("torch", reason="torch is not installed: no file to convert")
    folder = tmp_path_factory.mktemp("tiny")
    h = {
        "n_channels": 3, "nf": 8, "ch_mult": [1, 1], "res_blocks": 1, "attn_resolutions": [], "img_size": 16, "emb_dim": 8,
        "codebook_size": 4, "norm_first": True, "gen_mul": 1.0, "ndf": 8, "disc_layers": 1, "use_tanh": True,
    }  # fmt: skip
    save(folder / "binaryae_7.th", random_state(autoencoder_layout(h)))
    overrides = ["prior.width=16", "prior.depth=1", "prior.heads=2", "prior_training.num_steps=2"]
    overrides += ["prior_training.batch_size=8", "prior_training.evaluate_batches=1", "sampling.steps=2"]
    to_workdir(workdir=folder / "w", autoencoder=folder / "binaryae_7.th", hparams=h, overrides=overrides)
    return folder / "w"


def test_codes_and_a_new_prior_from_an_imported_autoencoder(tiny, photos, tmp_path):
    work = shutil.copytree(tiny, tmp_path / "w")
    assert "7 of 7 steps" in describe(work)
    main(["encode", f"--workdir={work}", f"--config.data.path={photos}"])
    main(["train", "--stage=prior", f"--workdir={work}"])
    model = binlatent.load(work)
    assert model.sample(num=2).shape == (2, 16, 16, 3) and model.num_classes == 2


@pytest.mark.parametrize("discriminator", ["official", "patchgan"])
def test_fine_tuning_starts_from_an_imported_autoencoder(tiny, photos, tmp_path, discriminator, capsys):
    changes = {
        "data.path": photos,
        "discriminator.architecture": discriminator,
        "discriminator_optimizer.learning_rate": 1e-12,
        "autoencoder_loss.adversarial.weight": 0.1,
        "autoencoder_loss.adversarial.start_step": 100,  # the discriminator's statistics do not move before
        "autoencoder_training.num_steps": 1,
        "autoencoder_training.batch_size": 8,
        "autoencoder_optimizer.learning_rate": 1e-12,
    }
    arguments = [f"--config.{key}={value}" for key, value in changes.items()]
    work = tmp_path / "w"
    main(["train", "--stage=autoencoder", f"--config={tiny}", f"--init_from={tiny}", f"--workdir={work}", *arguments])
    old, new = (load_parts(w / "autoencoder" / "checkpoints", ("ema", "extra"))[1] for w in (tiny, work))
    afresh = "discriminator starts afresh" in capsys.readouterr().out
    assert afresh == (discriminator == "patchgan")
    for name in ("autoencoder",) if afresh else ("autoencoder", "discriminator"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), old["ema"][name], new["ema"][name])
    if not afresh:
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(old["extra"]["statistics"]))
        jax.tree.map(np.testing.assert_array_equal, old["extra"], new["extra"])
    else:
        assert not jax.tree.leaves(new["extra"]["statistics"])  # the default PatchGAN has no running statistics


@pytest.mark.parametrize("case", ["denoiser", "denoiser_text_token", "denoiser_text_cross"])
def test_a_denoiser_alone(reference, tmp_path, case):
    to_workdir(workdir=tmp_path / "w", denoiser=f"{reference}/{case}/{DEN}", hparams=f"{reference}/{case}/hparams.json")
    model, io = binlatent.load(tmp_path / "w"), np.load(f"{reference}/{case}/io.npz")
    condition = io.get("label")
    given = {} if condition is None else {"labels" if condition.ndim == 1 else "condition": condition}
    part = next(model.sample_batches(num=3, steps=2, guidance=1.0, **given))
    assert part.codes.shape == (3, 8, 8, 16) and part.images is None
    with pytest.raises(UserError, match="no autoencoder"):
        model.sample(num=1)
    if condition is not None:
        with pytest.raises(UserError, match="expected"):
            model.denoise(part.codes, 0.5, condition=condition[..., :-1])
    describe(tmp_path / "w")


OWN_ENCODER = """
import numpy as np
def encode(captions):
    n = len(captions)
    return np.zeros((n, 1, {0})), np.ones((n, 1), bool), np.array([np.sin(np.arange({0}) + len(c)) for c in captions])
"""


@pytest.mark.parametrize("case", ["denoiser_text_token", "denoiser_text_cross"])
def test_an_imported_text_model_reads_prompts(reference, tmp_path, case):
    """Its one vector is what an encoder that the config names gives for a sentence."""
    width = np.load(f"{reference}/{case}/io.npz")["label"].shape[-1]
    (tmp_path / "own.py").write_text(OWN_ENCODER.format(width))
    files = {"denoiser": f"{reference}/{case}/{DEN}", "hparams": f"{reference}/{case}/hparams.json"}
    encoder = [f"text.encoder={tmp_path / 'own.py'}:encode", "text.use=pooled"]
    to_workdir(workdir=tmp_path / "w", **files, overrides=encoder)
    model = binlatent.load(tmp_path / "w")
    vectors = np.float16([np.sin(np.arange(width) + len(prompt)) for prompt in ("a cat", "it")])
    vectors = vectors[:, None] if case.endswith("cross") else vectors
    call = {"num": 4, "steps": 2, "guidance": 1.0}
    found = next(model.sample_batches(prompts=["a cat", "it"], **call)).codes
    assert np.array_equal(found, next(model.sample_batches(condition=vectors, **call)).codes)
    to_workdir(workdir=tmp_path / "without", **files)
    with pytest.raises(UserError, match=r"trained on embeddings.*text\.encoder"):
        binlatent.load(tmp_path / "without").sample_batches(prompts=["a cat"])


def test_mismatched_files_are_reported(reference, tmp_path):
    hparams = _hparams(reference, "denoiser") | {"latent_shape": None, "codebook_size": None, "emb_dim": None}
    hparams |= {"img_size": 32}
    files = {"autoencoder": f"{reference}/autoencoder_tanh/{AE}", "denoiser": f"{reference}/denoiser/{DEN}"}
    with pytest.raises(UserError, match=r"\(8, 8, 24\).*\(8, 8, 16\)"):
        to_workdir(workdir=tmp_path / "w", **files, hparams=hparams)
    files["autoencoder"] = f"{reference}/autoencoder/{AE}"
    lines = to_workdir(workdir=tmp_path / "w", **files, hparams=hparams)
    assert any("trained on another autoencoder's codes" in line for line in lines)


@pytest.mark.parametrize("what", ["truncated", "text", "code", "missing", "more", "hparams", "config", "other"])
def test_nothing_is_written_after_an_error(reference, tmp_path, what, capsys):
    torch = pytest.importorskip("torch", reason="torch is not installed: no broken files to write")
    good, bad = f"{reference}/autoencoder/{AE}", tmp_path / "bad.th"
    shutil.copyfile(good, bad)
    hparams, arguments = _hparams(reference, "autoencoder"), []
    match what:
        case "truncated":
            bad.write_bytes(bad.read_bytes()[:100_000])
        case "text":
            bad.write_text("no checkpoint")
        case "code":
            torch.save(torch.nn.Linear(2, 2), bad)
        case "missing":
            state = read_state(good)
            del state["ae.quantize.embed.weight"]
            torch.save({k: torch.tensor(v) for k, v in state.items()}, bad)
        case "more":
            torch.save({k: torch.tensor(v) for k, v in (read_state(good) | {"ae.x": np.ones(1)}).items()}, bad)
        case "hparams":
            hparams["codebook_size"] = 32
        case "config":
            arguments = ["--config.sampling.stpes=3"]
        case "other":
            bad = f"{reference}/denoiser/{DEN}"
    (tmp_path / "h.json").write_text(json.dumps(hparams))
    with pytest.raises(SystemExit) as stopped:
        main(["convert", f"--autoencoder={bad}", f"--hparams={tmp_path}/h.json", f"--workdir={tmp_path}/w", *arguments])
    assert stopped.value.code == 2
    assert not (tmp_path / "w").exists()
    said = capsys.readouterr().err
    expected = {
        "truncated": "truncated", "text": "not a PyTorch checkpoint", "code": "could run code", "missing": "quantize.embed",
        "more": "ae.x", "hparams": "codebook_size = 32", "config": "sampling.steps", "other": "use --denoiser",
    }  # fmt: skip
    assert said.startswith("binlatent: ") and expected[what] in said


def test_a_failure_while_writing_leaves_nothing(reference, tmp_path, monkeypatch):
    monkeypatch.setattr("binlatent.convert.workdir.config_lib.to_json", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        to_workdir(
            workdir=tmp_path / "w",
            autoencoder=f"{reference}/autoencoder/{AE}",
            hparams=_hparams(reference, "autoencoder"),
        )
    assert not (tmp_path / "w").exists()


def test_a_work_directory_is_not_overwritten(both, reference):
    with pytest.raises(UserError, match="not empty"):
        to_workdir(workdir=both, autoencoder=f"{reference}/autoencoder/{AE}")
    with pytest.raises(UserError, match="nothing to convert"):
        to_workdir(workdir=both / "new")


def test_the_perceptual_network_goes_where_training_looks_for_it(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    import binlatent.convert.workdir as module

    imported = module.import_autoencoder

    def with_lpips(*arguments):
        import dataclasses

        return dataclasses.replace(imported(*arguments), perceptual={"lin0": np.ones(3, np.float32)})

    monkeypatch.setattr(module, "import_autoencoder", with_lpips)
    to_workdir(
        workdir=tmp_path / "w", autoencoder=f"{reference}/autoencoder/{AE}", hparams=_hparams(reference, "autoencoder")
    )
    np.testing.assert_array_equal(weights.load("lpips")["lin0"], np.ones(3))
