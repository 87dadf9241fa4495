"""The layout of the release's files (names and shapes) as a function of its hyper-parameters, written independently of the
importer; `random_state` fills it."""

import math

import numpy as np

# C64 of the release: LSUN churches and FFHQ at 256²
C64 = {
    "n_channels": 3, "nf": 128, "ch_mult": [1, 1, 2, 2, 4], "res_blocks": 2, "attn_resolutions": [16], "img_size": 256,
    "emb_dim": 256, "codebook_size": 64, "latent_shape": [1, 16, 16], "norm_first": True, "gen_mul": 1.0, "ndf": 64,
    "disc_layers": 3, "use_tanh": False, "deterministic": False, "quantizer": "binary",
}  # fmt: skip
# its prior
CHURCHES = {
    "bert_n_emb": 768, "bert_n_head": 12, "bert_n_layers": 24, "block_size": 256, "codebook_size": 64, "emb_dim": 256,
    "latent_shape": [1, 16, 16], "total_steps": 256, "sample_steps": 256, "beta_type": "linear", "p_flip": True,
    "focal": 0, "cross": False,
}  # fmt: skip


class _Layout(dict):
    """Names and shapes."""

    def conv(self, name, cin, cout, kernel, bias=True):
        self[f"{name}.weight"] = (cout, cin, kernel, kernel)
        if bias:
            self[f"{name}.bias"] = (cout,)

    def norm(self, name, width):
        self[f"{name}.weight"] = self[f"{name}.bias"] = (width,)

    def dense(self, name, cin, cout):
        self[f"{name}.weight"], self[f"{name}.bias"] = (cout, cin), (cout,)

    def block(self, name, cin, cout):
        self.norm(f"{name}.norm1", cin)
        self.conv(f"{name}.conv1", cin, cout, 3)
        self.norm(f"{name}.norm2", cout)
        self.conv(f"{name}.conv2", cout, cout, 3)
        self.conv(f"{name}.conv_out", cin, cout, 1)

    def attention(self, name, width):
        self.norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.{part}", width, width, 1)


def autoencoder_layout(h) -> dict[str, tuple[int, ...]]:
    layout = _Layout()

    def blocks(prefix):
        n = -1

        def new_name():
            nonlocal n
            n += 1
            return f"{prefix}.{n}"

        return new_name

    resolution, width = h["img_size"], h["nf"]
    name = blocks("ae.encoder.blocks")
    layout.conv(name(), h["n_channels"], width, 3)
    for level, multiplier in enumerate(h["ch_mult"]):
        for _ in range(h["res_blocks"]):
            layout.block(name(), width, width := h["nf"] * multiplier)
            if resolution in h["attn_resolutions"]:
                layout.attention(name(), width)
        if level < len(h["ch_mult"]) - 1:
            layout.conv(f"{name()}.conv", width, width, 3)
            resolution //= 2
    layout.block(name(), width, width)
    layout.attention(name(), width)
    layout.block(name(), width, width)
    layout.norm(name(), width)
    layout.conv(name(), width, h["emb_dim"], 3)

    layout.conv("ae.quantize.proj.0", h["emb_dim"], h["codebook_size"], 1)
    layout["ae.quantize.embed.weight"] = (h["codebook_size"], h["emb_dim"])

    name = blocks("ae.generator.blocks")
    if h["norm_first"]:
        layout.norm(name(), h["emb_dim"])
    layout.conv(name(), h["emb_dim"], width, 3)
    layout.block(name(), width, width)
    layout.attention(name(), width)
    layout.block(name(), width, width)
    for level, multiplier in reversed(list(enumerate(h["ch_mult"]))):
        for _ in range(int(h["res_blocks"] * h["gen_mul"])):
            layout.block(name(), width, width := h["nf"] * multiplier)
            if resolution in h["attn_resolutions"]:
                layout.attention(name(), width)
        if level:
            layout.conv(f"{name()}.conv", width, width, 3)
            resolution *= 2
    layout.norm(name(), width)
    layout.conv(name(), width, h["n_channels"], 3)
    layout.conv("ae.generator.logsigma.0", width, width, 3)
    layout.conv("ae.generator.logsigma.2", width, h["n_channels"], 1)

    layout.conv("disc.main.0", h["n_channels"], h["ndf"], 4)
    width = h["ndf"]
    for i in range(1, h["disc_layers"] + 1):
        layout.conv(f"disc.main.{3 * i - 1}", width, width := h["ndf"] * min(2**i, 8), 4, bias=False)
        layout.norm(f"disc.main.{3 * i}", width)
        layout[f"disc.main.{3 * i}.running_mean"] = layout[f"disc.main.{3 * i}.running_var"] = (width,)
        layout[f"disc.main.{3 * i}.num_batches_tracked"] = ()
    layout.conv(f"disc.main.{3 * h['disc_layers'] + 2}", width, 1, 4)
    return dict(layout)


def denoiser_layout(h, num_classes=0, vector=0) -> dict[str, tuple[int, ...]]:
    layout, net, width = _Layout(), "_denoise_fn", h["bert_n_emb"]
    layout["embedding_weight"] = (h["codebook_size"], h["emb_dim"])
    layout[f"{net}.pos_emb"] = (1, h["block_size"], width)
    layout[f"{net}.tok_emb.weight"] = (h["codebook_size"], width)
    if num_classes:
        layout[f"{net}.cls_embedding.weight"] = (num_classes, width)
    if vector:
        layout.dense(f"{net}.cls_embedding", vector, width)
    for i in range(h["bert_n_layers"]):
        block = f"{net}.blocks.{i}"
        layout[f"{block}.gamma_1"] = layout[f"{block}.gamma_2"] = (width,)
        layout.norm(f"{block}.ln1", width)
        layout.norm(f"{block}.ln2", width)
        layout.dense(f"{block}.attn.qkv", width, 3 * width)
        layout.dense(f"{block}.attn.proj", width, width)
        layout.dense(f"{block}.mlp.0", width, 4 * width)
        layout.dense(f"{block}.mlp.2", 4 * width, width)
        if h["cross"]:
            layout[f"{block}.gamma_1_5"] = (width,)
            layout.norm(f"{block}.ln1_5", width)
            layout[f"{block}.cross.null_emb"] = (1, 1, h["text_emb"])
            layout.dense(f"{block}.cross.kv", h["text_emb"], 2 * width)
            layout.dense(f"{block}.cross.query", width, width)
            layout.dense(f"{block}.cross.proj", width, width)
    layout.norm(f"{net}.ln_f", width)
    layout.dense(f"{net}.head", width, h["codebook_size"])
    layout.dense(f"{net}.time_step_embedding.linear", width, width)
    layout.dense(f"{net}.time_step_embedding.l0", width, width)
    for table in ("k_final", "b_final", "beta", "cumbeta"):
        layout[f"scheduler.{table}"] = (h["total_steps"] + 1,)
    return dict(layout)


def random_state(layout, seed=0) -> dict[str, np.ndarray]:
    """Random weights of a size that keeps activations near 1; the tables are those of the linear schedule."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in layout.items():
        if name.startswith("scheduler."):
            state[name] = np.linspace(1, 0, shape[0], dtype=np.float32)
        elif name.endswith("num_batches_tracked"):
            state[name] = np.array(5)
        elif name.endswith("running_var") or (name.endswith(".weight") and len(shape) == 1):
            state[name] = 1 + 0.1 * rng.random(shape, np.float32)
        else:
            fan_in = math.prod(shape[1:]) if len(shape) > 1 else 100
            state[name] = rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(fan_in))
    return state


def save(path, state, **options) -> None:
    """Writes a state dict as the release does."""
    import torch

    torch.save({name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in state.items()}, path, **options)
