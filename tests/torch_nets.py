"""Torch networks with random weights for comparison; skips with a reason if torch or its models are missing."""

import contextlib

import pytest

_LIBRARIES = []  # an operator lives as long as the library that declared it


def torch_and(module: str):
    """(torch, the module), or a skip. torchvision's compiled part may not load beside a CPU torch; its Python models
    do."""
    torch = pytest.importorskip("torch", reason=f"torch is not installed: not compared with {module}")
    for operator in ("nms", "qnms"):
        _LIBRARIES.append(torch.library.Library("torchvision", "FRAGMENT"))
        with contextlib.suppress(RuntimeError):  # already declared
            _LIBRARIES[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return torch, pytest.importorskip(module, reason=f"{module} is not installed: not compared with it")


def state_of(net) -> dict:
    """A network's state dict as numpy arrays."""
    return {name: value.detach().numpy() for name, value in net.state_dict().items()}


def randomise(torch, net) -> None:
    """Random weights and statistics that preserve the scale of the signal, so that a tolerance of 1e-5 is meaningful at the
    output."""
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if value.ndim > 1:
            value.copy_(torch.randn_like(value) * (2 / value[0].numel()) ** 0.5)
        elif name.endswith(("running_var", "bn1.weight", "bn2.weight", "downsample.1.weight")):
            value.copy_(0.5 + torch.rand_like(value))
        elif name.endswith("bn3.weight"):
            value.copy_(0.2 * torch.rand_like(value))
        else:
            value.copy_(0.1 * torch.randn_like(value))
