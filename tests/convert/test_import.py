"""The importer, with complete and broken state dicts."""

import json
import os

import jax
import numpy as np
import pytest

from binlatent.convert.autoencoder import import_autoencoder
from binlatent.convert.denoiser import import_denoiser
from binlatent.convert.hyperparameters import Hyperparameters
from binlatent.convert.torch_file import read_state
from binlatent.errors import UserError
from tests.convert.release import autoencoder_layout, denoiser_layout, random_state

SMALL = {
    "n_channels": 3, "nf": 32, "ch_mult": [1, 2], "res_blocks": 2, "attn_resolutions": [8], "img_size": 16, "emb_dim": 48,
    "codebook_size": 12, "latent_shape": [1, 8, 8], "norm_first": False, "gen_mul": 1.5, "ndf": 8, "disc_layers": 1,
    "use_tanh": False, "deterministic": False, "quantizer": "binary",
}  # fmt: skip
PRIOR = {
    "bert_n_emb": 32, "bert_n_head": 4, "bert_n_layers": 2, "block_size": 64, "codebook_size": 12, "emb_dim": 48,
    "latent_shape": [1, 8, 8], "total_steps": 16, "beta_type": "linear", "p_flip": True, "focal": 0, "cross": False,
}  # fmt: skip


def _autoencoder(state=None, **changes):
    state = random_state(autoencoder_layout(SMALL)) if state is None else state
    given = {k: v for k, v in (SMALL | changes).items() if v is not None}
    return import_autoencoder(state, Hyperparameters(given), "f.th")


def _denoiser(state=None, **changes):
    state = random_state(denoiser_layout(PRIOR)) if state is None else state
    given = {k: v for k, v in (PRIOR | changes).items() if v is not None}
    return import_denoiser(state, Hyperparameters(given), "f.th")


@pytest.mark.parametrize(
    "case",
    ["autoencoder", "autoencoder_tanh", "denoiser", "denoiser_class", "denoiser_text_token", "denoiser_text_cross"],
)
def test_the_layout_of_the_tests_equals_the_release_s(reference, case):
    folder = os.path.join(reference, case)
    with open(f"{folder}/hparams.json") as file:
        h = json.load(file)
    if "nf" in h:
        layout, name = autoencoder_layout(h), "binaryae_ema_1000.th"
    else:
        vector = 768 if case == "denoiser_text_token" else 0
        layout, name = denoiser_layout(h, num_classes=h.get("num_classes", 0), vector=vector), "bld_ema_1000.th"
    theirs = read_state(f"{folder}/saved_models/{name}")
    assert {key: array.shape for key, array in theirs.items()} == layout


def test_every_tensor_is_placed_or_named_and_sizes_come_from_them():
    state = random_state(autoencoder_layout(SMALL))
    imported = import_autoencoder(state, Hyperparameters({"img_size": 16}), "f.th")
    net = imported.net
    assert (net.channels, net.channel_multipliers, net.res_blocks, net.decoder_multiplier) == (32, (1, 2), 2, 1.5)
    assert (net.attention_resolutions, net.code_shape, net.norm_first) == ((8,), (8, 8, 12), False)
    trees = (imported.params, imported.discriminator_variables)
    placed = sum(x.size for tree in trees for x in jax.tree.leaves(tree))
    left = sum(state[key].size for key in imported.unused)
    counters = sum(key.endswith("num_batches_tracked") for key in state)
    assert placed + left + counters == sum(x.size for x in state.values())
    assert len(imported.unused) == 4 + 2 * 12  # logsigma, and the shortcuts of blocks that keep their width


def test_sizes_of_a_denoiser_come_from_its_tensors():
    state = random_state(denoiser_layout(PRIOR))
    imported = import_denoiser(state, Hyperparameters({"bert_n_head": 4, "p_flip": False}), "f.th")
    net = imported.net
    assert (net.code_shape, net.width, net.depth, net.total_steps) == ((8, 8, 12), 32, 2, 16)
    assert net.predict == "z0" and imported.schedule == "linear"
    placed = sum(x.size for x in jax.tree.leaves(imported.params))
    left = sum(state[key].size for key in imported.unused)
    assert placed + left == sum(x.size for x in state.values())


def test_a_discriminator_is_optional():
    state = {k: v for k, v in random_state(autoencoder_layout(SMALL)).items() if not k.startswith("disc.")}
    assert _autoencoder(state).discriminator is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"nf": 64}, "nf = 64.*says 32"),
        ({"ch_mult": [1, 4]}, r"ch_mult = \[1, 4\].*says \(1, 2\)"),
        ({"res_blocks": 3}, "res_blocks = 3.*says 2"),
        ({"gen_mul": 1.0}, r"gen_mul = 1.0.*says \[1.5, 1.5\]"),
        ({"codebook_size": 16}, "codebook_size = 16.*says 12"),
        ({"emb_dim": 32}, "emb_dim = 32.*says 48"),
        ({"norm_first": True}, "norm_first = True.*says False"),
        ({"attn_resolutions": [16]}, r"attn_resolutions = \[16\].*says \[8\]"),
        ({"img_size": 32}, "img_size = 32.*says 16"),
        ({"ndf": 16}, "ndf = 16.*says 8"),
        ({"disc_layers": 2}, "disc_layers = 2.*says 1"),
        ({"n_channels": 1}, "n_channels = 1.*says 3"),
        ({"img_size": None, "latent_shape": None}, "lack img_size"),
        ({"img_size": "16", "latent_shape": None}, "img_size is '16'; a int"),
        ({"use_tanh": 1}, "use_tanh is 1; a bool"),
        ({"latent_shape": [8]}, r"latent_shape is \[8\]"),
        ({"quantizer": "nearest"}, "quantizer"),
    ],
)
def test_autoencoder_hyperparameters_that_contradict(changes, message):
    with pytest.raises(UserError, match=message):
        _autoencoder(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"bert_n_emb": 64}, "bert_n_emb = 64.*says 32"),
        ({"bert_n_layers": 3}, "bert_n_layers = 3.*says 2"),
        ({"bert_n_head": 5}, "bert_n_head is 5.*32"),
        ({"bert_n_head": None}, "lack bert_n_head"),
        ({"p_flip": None}, "lack p_flip"),
        ({"codebook_size": 16}, "codebook_size = 16.*says 12"),
        ({"total_steps": 64}, "total_steps = 64.*says 16"),
        ({"beta_type": "cos"}, "beta_type = 'cos'.*says 'linear'"),
        ({"latent_shape": [1, 8, 4]}, r"latent_shape = \[1, 8, 4\].*64 tokens"),
        ({"block_size": 32}, "block_size = 32.*says 64"),
        ({"cross": True}, "cross = True.*says False"),
        ({"emb_dim": 32}, "emb_dim = 32.*says 48"),
    ],
)
def test_denoiser_hyperparameters_that_contradict(changes, message):
    with pytest.raises(UserError, match=message):
        _denoiser(**changes)


@pytest.mark.parametrize(
    "key",
    [
        "ae.encoder.blocks.1.conv1.weight",
        "ae.generator.blocks.2.q.bias",
        "ae.quantize.embed.weight",
        "disc.main.3.bias",
    ],
)
def test_missing_tensors_are_named(key):
    state = random_state(autoencoder_layout(SMALL))
    del state[key]
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        _autoencoder(state)


def test_a_missing_layer_of_a_denoiser_is_named():
    state = {k: v for k, v in random_state(denoiser_layout(PRIOR)).items() if ".blocks.1.mlp." not in k}
    with pytest.raises(UserError, match=r"lacks 4 of the .*blocks\.1\.mlp\.0\.weight"):
        _denoiser(state)


def test_unknown_tensors_are_named():
    state = random_state(autoencoder_layout(SMALL)) | {"ae.extra.weight": np.zeros(3)}
    with pytest.raises(UserError, match=r"f\.th has 1 tensors .* unknown to this architecture: ae\.extra\.weight"):
        _autoencoder(state)
    state = random_state(denoiser_layout(PRIOR)) | {"_denoise_fn.blocks.0.attn.q_norm": np.zeros(3)}
    with pytest.raises(UserError, match=r"attn\.q_norm"):
        _denoiser(state)


def test_a_wrong_shape_names_the_key_both_shapes_and_the_hyperparameter():
    state = random_state(autoencoder_layout(SMALL))
    state["ae.encoder.blocks.2.norm.weight"] = np.zeros(7, np.float32)
    with pytest.raises(UserError, match=r"no level|encoder\.blocks"):
        _autoencoder(state)
    state = random_state(denoiser_layout(PRIOR))
    state["_denoise_fn.blocks.1.attn.proj.weight"] = np.zeros((32, 31), np.float32)
    message = r"blocks\.1\.attn\.proj\.weight has shape \(32, 31\), expected \(32, 32\) \(check bert_n_emb\)"
    with pytest.raises(UserError, match=message):
        _denoiser(state)


def test_the_two_files_are_not_mistaken_for_each_other():
    with pytest.raises(UserError, match="use --denoiser"):
        _autoencoder(random_state(denoiser_layout(PRIOR)))
    with pytest.raises(UserError, match="use --autoencoder"):
        _denoiser(random_state(autoencoder_layout(SMALL)))


def test_an_unknown_schedule_is_refused():
    state = random_state(denoiser_layout(PRIOR))
    state["scheduler.k_final"] = state["scheduler.k_final"] ** 3
    with pytest.raises(UserError, match="matches none of"):
        _denoiser(state)


def test_hyperparameter_files(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        Hyperparameters(tmp_path / "h.json")
    (tmp_path / "h.json").write_text("{nf: 1}")
    with pytest.raises(UserError, match="not JSON"):
        Hyperparameters(tmp_path / "h.json")
    (tmp_path / "h.json").write_text("[1]")
    with pytest.raises(UserError, match="JSON object"):
        Hyperparameters(tmp_path / "h.json")


def test_perceptual_tensors_are_imported_if_they_are_lpips():
    from binlatent.nets import vgg

    state, index, width = random_state(autoencoder_layout(SMALL)), 0, 3
    for stage, (channels, convolutions) in enumerate(vgg.STAGES, start=1):
        for _ in range(convolutions):
            # a slice begins at its pooling, so the index alone says which convolution it is
            state[f"perceptual.net.slice{stage}.{index}.weight"] = np.zeros((channels, width, 3, 3), np.float32)
            state[f"perceptual.net.slice{stage}.{index}.bias"] = np.full(channels, stage, np.float32)
            index, width = index + 2, channels
        index += 1
        state[f"perceptual.lin{stage - 1}.model.1.weight"] = np.ones((1, channels, 1, 1), np.float32)
    state["perceptual.scaling_layer.shift"] = np.zeros((1, 3, 1, 1), np.float32)
    imported = _autoencoder(state)
    assert imported.perceptual["vgg"]["conv3_1"]["bias"][0] == 3
    assert not [key for key in imported.unused if key.startswith("perceptual")]

    del state["perceptual.net.slice5.28.bias"]
    imported = _autoencoder(state)
    assert imported.perceptual is None
    assert "features.28.bias" in imported.unused["perceptual.lin0.model.1.weight"]
