"""A folder with an exported model: functions, parameters, a manifest with checksums, and a program that runs it.

manifest.json          written last: without it the folder is incomplete
encode.jax, decode.jax, denoise.jax, sample.jax
params.safetensors     arrays named `autoencoder/…` and `prior/…`
run.py                 makes images; needs jax, flatbuffers and numpy
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
from etils import epath

from binlatent import __version__
from binlatent.checkpoint import fingerprint
from binlatent.errors import UserError
from binlatent.export.functions import PLATFORMS, Function, functions
from binlatent.files import user_path, write_atomic
from binlatent.pipeline import Pipeline
from binlatent.sampling.inputs import check_student_options
from binlatent.sampling.options import SamplingOptions
from binlatent.stored.pack import named_arrays

FORMAT = 1
PARAMETERS = "params.safetensors"


def export_model(model: Pipeline, out: epath.PathLike, options: SamplingOptions) -> dict[str, Any]:
    """Writes the folder and returns its manifest.

    Raises:
      UserError: the folder holds something already or cannot be written, or a student has not learned the options.
    """
    from safetensors.numpy import save

    if model.student:
        check_student_options(model.student, options)
    folder = _new_folder(out)
    halves = {"autoencoder": model.autoencoder, "prior": model.prior}
    halves = {name: half for name, half in halves.items() if half is not None}
    arrays = named_arrays({name: jax.device_get(half.params) for name, half in halves.items()})
    contents = {PARAMETERS: save(arrays, {"format": "binlatent-export"})}
    described = {}
    for function in functions(model, options):
        exported = function.export(arrays)
        contents[f"{function.name}.jax"] = bytes(exported.serialize())
        described[function.name] = {"file": f"{function.name}.jax"} | _describe(function, exported)
    contents["run.py"] = Path(__file__).with_name("run.py").read_bytes()
    manifest = {
        "format": FORMAT,
        "versions": {"binlatent": __version__, "jax": jax.__version__},
        "platforms": PLATFORMS,
        "stages": {name: {"step": half.step, "fingerprint": fingerprint(half.params)} for name, half in halves.items()},
        "code_shape": model.code_shape,
        "num_classes": model.num_classes if model.prior else 0,
        "class_names": model.class_names if model.prior else (),
        "text": model.prior.metadata.get("text") if model.prior else None,
        "sampling": dataclasses.asdict(options) if model.prior else {},
        "functions": described,
        "parameters": {name: {"shape": x.shape, "dtype": str(x.dtype)} for name, x in sorted(arrays.items())},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents["manifest.json"] = json.dumps(manifest, indent=1).encode()
    try:
        for name, content in contents.items():
            write_atomic(folder / name, content)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error}") from error
    return manifest


def _new_folder(out: epath.PathLike) -> epath.Path:
    folder = user_path(out).expanduser()
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {out} is a file: a new or empty folder is expected")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"--out {out} holds something already: a new or empty folder is expected")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {os.fspath(out)} cannot be written: {error}") from error
    return folder


def _describe(function: Function, exported: Any) -> dict[str, Any]:
    """Names, shapes (with `b` for the batch) and types of what a function takes after the parameters, and gives."""

    def entry(name: str, array: Any) -> dict[str, Any]:
        shape = [size if isinstance(size, int) else str(size) for size in array.shape]
        return {"name": name, "shape": shape, "dtype": str(array.dtype)}

    return {
        "arguments": [entry(name, array) for name, array in function.arguments.items()],
        "results": [entry(name, array) for name, array in zip(function.results, exported.out_avals, strict=True)],
        "calling_convention_version": exported.calling_convention_version,
    }
