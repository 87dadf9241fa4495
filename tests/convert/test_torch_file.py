import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from binlatent.convert.torch_file import LEGACY_MAGIC, read_state, read_torch_file
from binlatent.errors import UserError

FILE = "autoencoder/saved_models/binaryae_ema_1000.th"


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: the reader is not compared with it")


@pytest.fixture
def checkpoint(reference):
    return os.path.join(reference, FILE)


@pytest.mark.parametrize("new_format", [True, False])
def test_equals_torch(torch, tmp_path, new_format):
    saved = {
        "transposed": torch.arange(12.0).reshape(3, 4).T,
        "parameter": torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16)),
        "scalar": torch.tensor(7),
        "half": torch.arange(5).half(),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(250, 256).byte(),
        "double": torch.tensor([1 / 3]).double(),
    }
    saved["view"] = saved["double"].new_zeros(10)[3:7]
    saved["shared"] = saved["half"][1:3]
    path = tmp_path / "a.th"
    torch.save(saved, path, _use_new_zipfile_serialization=new_format)
    read = read_torch_file(path)
    assert list(read) == list(saved)
    for name, tensor in saved.items():
        expected = tensor.detach().float().numpy() if name == "parameter" else tensor.numpy()
        assert read[name].shape == tuple(tensor.shape)
        assert name == "parameter" or read[name].dtype == expected.dtype
        np.testing.assert_array_equal(read[name].astype(expected.dtype), expected)


def test_a_state_dict_of_a_module_in_both_formats(torch, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    for new_format in (True, False):
        torch.save(module.state_dict(), tmp_path / "m.pth", _use_new_zipfile_serialization=new_format)
        read = read_torch_file(tmp_path / "m.pth")
        assert {k: v.tolist() for k, v in read.items()} == {k: v.tolist() for k, v in module.state_dict().items()}


def test_the_data_parallel_prefix_is_removed(torch, tmp_path):
    torch.save({"module.a": torch.ones(1), "module.b": torch.ones(1)}, tmp_path / "p.th")
    assert list(read_state(tmp_path / "p.th")) == ["a", "b"]
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "q.th")
    assert list(read_state(tmp_path / "q.th")) == ["module.a", "b"]


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def _zip(path, content: bytes, **storages: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key[1:]}", data)


def _tensor_pickle(call: bytes) -> bytes:
    """A pickle of {"a": tensor over a FloatStorage of 4}, `call` giving offset, shape and strides."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + storage + call + b"\x89NtRs."


def _legacy(path, content: bytes):
    system = {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}
    with open(path, "wb") as file:
        for part in (LEGACY_MAGIC, 1001, system):
            pickle.dump(part, file, protocol=2)
        file.write(content)


@pytest.mark.parametrize("write", [_zip, _legacy])
def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path, write):
    target = tmp_path / "ran"
    write(tmp_path / "bomb.th", pickle.dumps({"a": _Bomb(str(target))}))
    with pytest.raises(UserError, match=r"bomb\.th is refused.*open"):
        read_torch_file(tmp_path / "bomb.th")
    assert not target.exists()


@pytest.mark.parametrize("name", ["builtins\neval", "os\nsystem", "torch.nn.modules.linear\nLinear", "torch\nload"])
def test_any_other_name_is_refused(tmp_path, name):
    _zip(tmp_path / "a.th", b"\x80\x02}X\x01\x00\x00\x00ac" + name.encode() + b"\n)Rs.")
    with pytest.raises(UserError, match=name.replace("\n", r"\.")):
        read_torch_file(tmp_path / "a.th")


def test_a_pickle_cannot_change_the_reader(tmp_path):
    # BUILD with (None, {"__defaults__": …}) on the tensor function
    evil = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\x00\x00\x00__defaults__(K\x01tstb0" + b"}."
    _zip(tmp_path / "evil.th", evil)
    with pytest.raises(UserError):
        read_torch_file(tmp_path / "evil.th")
    data = np.arange(4, dtype=np.float32)
    _zip(tmp_path / "good.th", _tensor_pickle(b"K\x00K\x02\x85K\x02\x85"), _0=data.tobytes())
    np.testing.assert_array_equal(read_torch_file(tmp_path / "good.th")["a"], [0, 2])


@pytest.mark.parametrize(
    "call",
    [
        b"K\x00K\x05\x85K\x01\x85",  # shape (5,) in a storage of 4
        b"K\x02K\x03\x85K\x01\x85",  # offset 2 + 3
        b"K\x00K\x03\x85K\x02\x85",  # stride 2
        b"K\x00K\x04\x85J\xff\xff\xff\xff\x85",  # stride −1
        b"K\x00K\x02K\x02\x86K\x01\x85",  # two axes, one stride
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, call):
    _zip(tmp_path / "a.th", _tensor_pickle(call), _0=bytes(16))
    with pytest.raises(UserError, match="a tensor of shape"):
        read_torch_file(tmp_path / "a.th")


def test_a_storage_of_another_size_is_refused(tmp_path):
    _zip(tmp_path / "a.th", _tensor_pickle(b"K\x00K\x02\x85K\x02\x85"), _0=bytes(12))
    with pytest.raises(UserError, match="12 bytes; 16"):
        read_torch_file(tmp_path / "a.th")


@pytest.mark.parametrize("keep", [0, 3, 1000, 0.5, 0.999])
def test_truncated_files(checkpoint, tmp_path, keep):
    with open(checkpoint, "rb") as file:
        whole = file.read()
    (tmp_path / "cut.th").write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(UserError, match=r"cut\.th is not a PyTorch checkpoint, or is damaged or truncated"):
        read_torch_file(tmp_path / "cut.th")


@pytest.mark.parametrize("new_format", [True, False])
def test_truncated_at_every_length(torch, tmp_path, new_format):
    whole = io.BytesIO()
    torch.save({"a": torch.arange(20.0), "b": torch.ones(3)}, whole, _use_new_zipfile_serialization=new_format)
    whole = whole.getvalue()
    for length in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.th").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.th"):
            read_torch_file(tmp_path / "cut.th")


def test_a_flipped_bit_in_the_data_is_found(checkpoint, tmp_path):
    with open(checkpoint, "rb") as file:
        whole = bytearray(file.read())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "flipped.th").write_bytes(whole)
    with pytest.raises(UserError, match="damaged"):
        read_torch_file(tmp_path / "flipped.th")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"just text", "not a PyTorch checkpoint"),
        (pickle.dumps({"a": 1}), "not a PyTorch checkpoint"),
        (b"", "not a PyTorch checkpoint"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "x.th").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_torch_file(tmp_path / "x.th")


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_torch_file(tmp_path / "x.th")
    with pytest.raises(UserError, match="checkpoint file is expected"):
        read_torch_file(tmp_path)


def test_other_contents_are_named(torch, tmp_path):
    torch.save({"model": {"a": torch.ones(1)}, "step": 3}, tmp_path / "a.th")
    with pytest.raises(UserError, match=r"its entry 'model' is a dict"):
        read_torch_file(tmp_path / "a.th")
    torch.save(torch.ones(1), tmp_path / "a.th")
    with pytest.raises(UserError, match="not a state dict"):
        read_torch_file(tmp_path / "a.th")
