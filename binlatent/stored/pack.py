"""A trained model in one file: a safetensors file whose header holds the config and what the checkpoints say of themselves.

    autoencoder/encoder/conv_in/kernel    arrays, by stage and by their names in the network
    __metadata__                          binlatent-pack: JSON of version, config, stages, checksums

Any program that reads safetensors reads the arrays. Optimizer states and discriminators are not in it.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from binlatent.errors import UserError
from binlatent.files import digest, user_path, write_atomic
from binlatent.typing import PyTree

SUFFIX = ".safetensors"
KEY, VERSION = "binlatent-pack", 1
HUB = "hf://"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pack:
    """What such a file holds.

    Attributes:
      config: the JSON object of a `config.json`.
      params: EMA parameters of each stage's network, as a tree of NumPy arrays.
      stages: of each stage its `step` and its checkpoint's `metadata`.
    """

    config: dict[str, Any]
    params: dict[str, PyTree]
    stages: dict[str, dict[str, Any]]


def is_pack(path: epath.PathLike) -> bool:
    """Whether a path names a file rather than a work directory."""
    text = os.fspath(path)
    return text.startswith(HUB) or text.endswith(SUFFIX)


def named_arrays(params: Mapping[str, PyTree]) -> dict[str, np.ndarray]:
    """Arrays by `stage/name/in/the/network`."""
    return {name: np.ascontiguousarray(x) for name, x in flatten_dict(dict(params), sep="/").items()}


def write_pack(path: epath.PathLike, pack: Pack) -> None:
    """Writes the file completely or not at all, locally or into a bucket.

    Raises:
      UserError: the name has another ending.
    """
    from safetensors.numpy import save

    if not os.fspath(path).endswith(SUFFIX) or os.fspath(path).startswith(HUB):
        raise UserError(f"{path}: a pack is a local or gs:// file whose name ends in {SUFFIX}")
    arrays = named_arrays(pack.params)
    header = {
        "version": VERSION,
        "config": pack.config,
        "stages": pack.stages,
        "checksums": {name: digest(x) for name, x in arrays.items()},
    }
    # one key: the library writes several in any order
    write_atomic(path, save(arrays, {KEY: json.dumps(header, sort_keys=True)}))


def read_pack(path: epath.PathLike) -> Pack:
    """Reads a pack from a local path, `gs://BUCKET/FILE` or `hf://OWNER/NAME[@REVISION]/FILE`.

    Raises:
      UserError: there is no such file, it is cut short or has changed, it is no pack, or one of a newer version.
    """
    import safetensors
    from safetensors.numpy import load

    content = _content(path)
    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        header = (json.loads(content[8 : 8 + size]).get("__metadata__") or {}).get(KEY)
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path} is cut short or no {SUFFIX} file ({error}): copy or pack it again") from error
    if header is None:
        raise UserError(f"{path} is a {SUFFIX} file that `binlatent pack` has not made: it lacks the model's config")
    try:
        header = json.loads(header)
        version = header["version"]
        if version == VERSION:
            config, stages, checksums = (header[key] for key in ("config", "stages", "checksums"))
            named = set(checksums) | set(arrays)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} has a header that cannot be read ({error!r}): copy or pack it again") from error
    if version != VERSION:
        raise UserError(
            f"{path} is a pack of format {version!r}; this version of binlatent reads format {VERSION}: install the "
            "version that wrote it, or pack its work directory again"
        )
    if changed := [name for name in sorted(named) if name not in arrays or digest(arrays[name]) != checksums.get(name)]:
        raise UserError(f"{path} has changed since it was written: array {changed[0]}; copy or pack it again")
    return Pack(config=config, params=unflatten_dict(arrays, sep="/"), stages=stages)


def _content(path: epath.PathLike) -> bytes:
    text = os.fspath(path)
    local = user_path(_from_hub(text) if text.startswith(HUB) else path)
    try:
        if local.is_dir():
            raise UserError(f"{path} is a folder: a file made by `binlatent pack`, or a work directory, is expected")
        return local.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; `binlatent pack` makes one from a work directory") from error
    except (OSError, ImportError) as error:  # ImportError: no file system for such an address
        raise UserError(f"{path} cannot be read: {error}") from error


def _from_hub(text: str) -> str:
    """The local copy of `hf://OWNER/NAME[@REVISION]/FILE`, downloaded unless the cache has it."""
    parts = text.removeprefix(HUB).split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise UserError(f"{text}: hf://OWNER/NAME/FILE is expected, perhaps with @REVISION after NAME")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UserError(f"{text} needs huggingface_hub: `pip install 'binlatent[hf]'`") from error
    owner, (name, _, revision), file = parts[0], parts[1].partition("@"), parts[2]
    try:
        return hf_hub_download(repo_id=f"{owner}/{name}", filename=file, revision=revision or None)
    except (OSError, ValueError) as error:  # its own errors derive from these
        raise UserError(f"{text} cannot be had: {(str(error).strip().splitlines() or [''])[0]}") from error
