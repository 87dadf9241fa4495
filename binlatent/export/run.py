"""Makes images with an exported model, with jax, flatbuffers and numpy alone; writes samples.npz.

python run.py [SEED NUM [CONDITIONS.npy]]     conditions: class numbers (all in turn unless given) or embeddings; .npz where
                                              there are several, by the names of the arguments in manifest.json
"""

import json
import pathlib
import sys

import jax
import numpy as np
from jax import export


def main(seed=0, num=16, conditions=None):
    folder = pathlib.Path(__file__).parent
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "params.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # the arrays come after the header and its length
    params = {}
    for name, array in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in array["data_offsets"])
            params[name] = np.frombuffer(content[begin:end], "<f4").reshape(array["shape"])

    function = manifest["functions"].get("sample") or sys.exit("no prior was exported: there is nothing that samples")
    sample = export.deserialize(bytearray((folder / function["file"]).read_bytes())).call
    classes = np.arange(int(num), dtype=np.int32) % (manifest["num_classes"] or 1)
    given = {
        "seed": np.uint32(seed),
        "index": np.arange(int(num), dtype=np.uint32),  # image i is a function of the seed and its index
        "temperature": np.float32(manifest["sampling"]["temperature"]),
        "guidance": np.float32(manifest["sampling"]["guidance"]),
        "label": classes,
    }
    if conditions is not None:
        found = np.load(conditions)
        named = set(given) - {"label"}
        own = next((of["name"] for of in function["arguments"] if of["name"] not in named), "label")
        given |= found if hasattr(found, "files") else {own: found}
    missing = [of["name"] for of in function["arguments"] if of["name"] not in given]
    if missing:
        sys.exit(f"this model is conditioned on {', '.join(missing)}: give CONDITIONS.npy or .npz")
    results = sample(jax.device_put(params), *(given[argument["name"]] for argument in function["arguments"]))
    np.savez("samples.npz", **{of["name"]: array for of, array in zip(function["results"], results, strict=True)})


if __name__ == "__main__":
    main(*sys.argv[1:])
