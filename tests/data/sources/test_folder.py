import json
import os
import shutil
import zipfile

import numpy as np
import PIL.Image
import pytest

from binlatent.data.loader import eval_batches, train_batches
from binlatent.data.options import DataOptions
from binlatent.data.sources.folder import open_images
from binlatent.data.splits import check_conditions, open_splits
from binlatent.data.transforms import EvalImage
from binlatent.errors import UserError
from tests.conftest import CIFAR10


def opened(path, seed=0, **options):
    return open_splits(DataOptions(**{"source": "folder", "path": str(path), "resolution": 8, **options}), seed=seed)


def labels(source):
    return {
        (int(example["image"][0, 0, 0]), int(example["label"])) for example in (source[i] for i in range(len(source)))
    }


def test_class_folders(folder):
    splits = opened(folder)
    assert splits.class_names == ("bird", "cat", "dog")
    assert splits.num_classes == 3
    assert labels(splits.train) | labels(splits.validation) == {(i * 10, i % 3) for i in range(24)}


def test_classes_can_be_ignored(folder):
    splits = opened(folder, labels=False)
    assert splits.num_classes == 0
    assert set(splits.train[0]) == {"image"}


@pytest.mark.parametrize("nested", [False, True])
def test_a_flat_folder_and_one_with_a_single_sub_folder_have_no_classes(flat, nested):
    splits = opened(flat.parent if nested else flat)
    assert splits.num_classes == 0
    assert len(splits.train) + len(splits.validation) == 20
    assert "label" not in splits.train[0]


def test_held_out_files_stay_held_out_when_files_are_added(flat):
    def part():
        source = opened(flat, validation_fraction=0.3).validation
        return {os.path.basename(source.path(i)) for i in range(len(source))}

    before = part()
    for i in range(10):
        shutil.copy(flat / "00.png", flat / f"new{i}.png")
    assert {name for name in part() if not name.startswith("new")} == before


def test_folders_divided_into_splits(tmp_path, folder):
    divided = tmp_path / "divided"
    shutil.copytree(folder, divided / "train")
    shutil.copytree(folder, divided / "val")
    splits = opened(divided, validation_split="val")
    assert (len(splits.train), len(splits.validation), splits.num_classes) == (24, 24, 3)
    (divided / "__MACOSX").mkdir()  # of a zip file that was made on a Mac
    by_rule = opened(divided)
    assert len(by_rule.train) + len(by_rule.validation) == 24
    with pytest.raises(UserError, match=r"data\.validation_split='test'.*train, val"):
        opened(divided, validation_split="test")
    with pytest.raises(UserError, match=r"both 'train'"):
        opened(divided, validation_split="train")
    (divided / "val" / "cat").rename(divided / "val" / "cow")
    with pytest.raises(UserError, match=r"classes cow are not in the training split"):
        opened(divided, validation_split="val")


def test_a_class_may_be_called_train(tmp_path, folder):
    (folder / "cat").rename(folder / "train")
    assert opened(folder).class_names == ("bird", "dog", "train")
    with pytest.raises(UserError, match=r"not divided into splits"):
        opened(folder, validation_split="dog")


def test_missing_empty_and_wrong_folders_are_named(tmp_path, flat):
    with pytest.raises(UserError, match=r"nowhere': no such folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"data.path='': no such folder"):
        opened("")
    with pytest.raises(UserError, match=r"is a file"):
        opened(flat / "00.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    (tmp_path / "empty" / ".hidden.png").write_text("no image")
    with pytest.raises(UserError, match=r"empty: no image files"):
        opened(tmp_path / "empty")
    (tmp_path / "single").mkdir()
    shutil.copy(flat / "00.png", tmp_path / "single")
    with pytest.raises(UserError, match=r"split is empty; at least two"):
        opened(tmp_path / "single")


def test_images_beside_class_folders_have_no_class(folder, flat):
    shutil.copy(flat / "00.png", folder / "stray.png")
    with pytest.raises(UserError, match=r"1 images are outside the class folders \(bird, cat, dog\)"):
        opened(folder)
    assert opened(folder, labels=False).num_classes == 0


def test_mixed_sizes_and_modes_make_a_batch(flat):
    noise = np.random.default_rng(0).integers(0, 256, (31, 17, 4), np.uint8)
    PIL.Image.fromarray(noise[..., 0]).save(flat / "grey.jpg")
    PIL.Image.fromarray(noise).save(flat / "rgba.png")
    PIL.Image.fromarray(noise[..., :3]).convert("P").save(flat / "palette.gif")
    PIL.Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(flat / "deep.png")
    PIL.Image.fromarray(noise[..., :3]).save(flat / "picture.WEBP")
    for channels in (1, 3):
        options = DataOptions(source="folder", path=str(flat), resolution=8, channels=channels)
        splits = open_splits(options, seed=0)
        count = 0
        for part in (splits.train, splits.validation):
            for batch in eval_batches(part, options, batch_size=4):
                assert batch["image"].shape == (4, 8, 8, channels)
                count += batch["mask"].sum()
            assert not part.broken
        assert count == 25


def test_a_corrupt_jpeg_among_good_ones_is_named_and_skipped(flat, caplog):
    PIL.Image.new("RGB", (64, 64), (9, 9, 9)).save(flat / "cut.jpg")
    whole = (flat / "cut.jpg").read_bytes()
    (flat / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    options = DataOptions(source="folder", path=str(flat), resolution=8)
    splits = open_splits(options, seed=0)
    for part in (splits.train, splits.validation):
        batches = train_batches(part, options, seed=0, batch_size=1)
        for _ in range(2 * len(part)):
            next(batches)
    assert caplog.text.count("cut.jpg") == 1
    parts = (splits.train, splits.validation)
    assert sum(batch["mask"].sum() for part in parts for batch in eval_batches(part, options, batch_size=4)) == 20


def test_a_folder_of_nothing_but_broken_files_is_an_error(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.jpg").write_bytes(b"\xff\xd8 no more")
    options = DataOptions(source="folder", path=str(tmp_path), resolution=8)
    with pytest.raises(UserError, match=r"could not be read.*\.jpg.*data\.path"):
        next(train_batches(open_splits(options, seed=0).train, options, seed=0, batch_size=4))


def test_a_file_that_vanished_is_a_broken_one(flat, caplog):
    splits = opened(flat)
    os.remove(splits.train.path(0))
    assert splits.train[0]["image"].shape == (8, 8, 3)
    assert not splits.train.counted(0)
    assert "No such file" in caplog.text


def test_embeddings_are_read_from_beside_the_images(flat):
    with pytest.raises(UserError, match=r"20 of 20 images have no \.npy file beside them, the first is 00\.png"):
        opened(flat, embeddings="npy")
    for i in range(20):
        np.save(flat / f"{i:02d}.npy", np.full((3, 5), i, np.float64))
    splits = opened(flat, embeddings="npy")
    assert splits.condition_shape == (3, 5)
    for i in range(len(splits.train)):
        example = splits.train[i]
        assert example["condition"].dtype == np.float32
        assert (example["condition"] == example["image"][0, 0, 0]).all()
    name = os.path.splitext(splits.train.path(2))[0]
    np.save(f"{name}.npy", np.zeros(4))
    with pytest.raises(UserError, match=r"shape \(4,\), the first embedding \(3, 5\)"):
        splits.train[2]
    for value in (np.nan, np.inf, 1e5):
        np.save(f"{name}.npy", np.full((3, 5), value))
        with pytest.raises(UserError, match=r"npy: 15 of 15 values are NaN, infinite or above 65504"):
            splits.train[2]
    with open(f"{name}.npy", "wb") as file:
        file.write(b"junk")
    with pytest.raises(UserError, match=r"not a readable array"):
        splits.train[2]


def captions_of(splits):
    parts = (splits.train, splits.validation)
    examples = [part[i] for part in parts for i in range(len(part)) if part[i] and part.counted(i)]
    return {int(example["image"][0, 0, 0]): example["caption"] for example in examples}


def test_captions_in_text_files_beside_the_images(flat, caplog):
    for i in range(19):
        (flat / f"{i:02d}.txt").write_text(f"  a   grey\tpicture\r\n\n number {i}, größer 漢\n")
    with pytest.raises(
        UserError, match=r"1 of 20 images have no \.txt file beside them, the first is 19\.png; add them"
    ):
        opened(flat, captions="txt")
    (flat / "19.txt").write_text(" \n")
    splits = opened(flat, captions="txt")
    assert splits.captions
    assert captions_of(splits) == {i: ("a grey picture", f"number {i}, größer 漢") for i in range(19)}
    assert "19.txt: the caption is empty" in caplog.text
    (flat / "03.txt").write_text("longer or shorter")
    assert opened(flat, captions="txt").fingerprint != splits.fingerprint
    (flat / "03.txt").write_bytes(b"caf\xe9")
    captions_of(opened(flat, captions="txt"))
    assert "03.txt: 'utf-8' codec can't decode" in caplog.text


def write_metadata(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def test_captions_in_the_metadata_of_hugging_face(flat):
    rows = [{"file_name": f"{i:02d}.png", "text": f"number {i}", "label": 3} for i in range(20)]
    rows[7]["text"] = ["seven", "  7 "]
    rows[8]["text"] = "cut\ud83d and\0 mended"
    more = [{"file_name": "09.png", "text": "nine"}, {"file_name": "elsewhere.png", "text": "x"}]
    write_metadata(flat / "metadata.jsonl", [*rows, "", *more])
    found = captions_of(opened(flat, captions="jsonl"))
    expected = {i: (f"number {i}",) for i in range(20)}
    assert found == expected | {7: ("seven", "7"), 8: ("cut and mended",), 9: ("number 9", "nine")}
    divided = flat.parent / "divided"
    for split in ("train", "val"):
        shutil.copytree(flat, divided / split)
    (divided / "val" / "metadata.jsonl").unlink()
    moved = [row | {"file_name": f"val/{row['file_name']}"} for row in (*rows, more[0])]
    write_metadata(divided / "metadata.jsonl", moved)
    splits = opened(divided, captions="jsonl", validation_split="val")
    assert len(splits.train) == len(splits.validation) == 20
    assert captions_of(splits) == found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{broken", r"metadata\.jsonl, line 3: .*expected \{\"file_name\""),
        ("[1, 2]", r"line 3: a JSON object is expected, not list"),
        ({"text": "x"}, r"line 3: file_name is None"),
        ({"file_name": "02.png"}, r"line 3: text is None, a caption was expected"),
        ({"file_name": "02.png", "text": ""}, r"line 3: text is ''"),
        ({"file_name": "02.png", "text": ["a", 3]}, r"line 3: text is \['a', 3\]"),
        ({"file_name": "x.png", "text": "a"}, r"1 of 20 images have no line here, the first is 02\.png"),
    ],
)
def test_errors_in_the_metadata_name_the_line(flat, row, message):
    rows = [{"file_name": f"{i:02d}.png", "text": f"number {i}"} for i in range(20)]
    rows[2] = row
    write_metadata(flat / "metadata.jsonl", rows)
    with pytest.raises(UserError, match=message):
        opened(flat, captions="jsonl")


def test_metadata_that_is_missing_is_named(flat):
    with pytest.raises(UserError, match=r"there is no metadata\.jsonl in .*flat; add it"):
        opened(flat, captions="jsonl")


def test_captions_and_classes_together(folder):
    for i in range(24):
        (folder / ("bird", "cat", "dog")[i % 3] / "deep" / f"{i:02d}.txt").write_text(f"number {i}")
    splits = opened(folder, captions="txt")
    assert splits.num_classes == 3
    assert {(v["caption"][0], int(v["label"])) for v in (splits.train[i] for i in range(len(splits.train)))} <= {
        (f"number {i}", i % 3) for i in range(24)
    }


def test_classes_and_embeddings_together_are_found_as_soon_as_the_data_is_open(folder):
    for i in range(24):
        np.save(folder / ("bird", "cat", "dog")[i % 3] / "deep" / f"{i:02d}.npy", np.full(5, i))
    splits = opened(folder, embeddings="npy")
    assert {"image", "label", "condition"} == set(splits.train[0])  # the data have both
    check_conditions(splits, labels_with_embeddings=True)
    with pytest.raises(
        UserError, match=r"has 3 classes and embeddings of shape \(5,\).*data\.labels=False or data\.emb"
    ):
        check_conditions(splits, labels_with_embeddings=False)
    check_conditions(opened(folder, embeddings="npy", labels=False), labels_with_embeddings=False)
    check_conditions(opened(folder), labels_with_embeddings=False)


def test_files_whose_names_are_not_unicode_can_be_read(flat, caplog):
    name = os.path.join(os.fsencode(flat), b"caf\xe9")
    for i in range(20):
        (flat / f"{i:02d}.txt").write_text("grey")
    shutil.copy(flat / "00.png", name + b".png")
    with open(name + b".txt", "w") as file:
        file.write("coffee")
    options = DataOptions(source="folder", path=str(flat), resolution=8, captions="txt")
    splits = open_splits(options, seed=0)
    assert len(splits.train) + len(splits.validation) == 21
    assert ("coffee",) in [part[i]["caption"] for part in (splits.train, splits.validation) for i in range(len(part))]
    with open(name + b".png", "wb") as file:
        file.write(b"junk")
    captions_of(open_splits(options, seed=0))
    assert r"caf\xe9.png: not an image in a known format" in caplog.text
    caplog.text.encode()  # any terminal prints it


def test_class_names_that_are_not_unicode_can_be_printed(folder):
    os.rename(folder / "cat", os.path.join(os.fsencode(folder), b"caf\xe9"))
    splits = opened(folder)
    assert splits.class_names == ("bird", r"caf\xe9", "dog")
    assert labels(splits.train) | labels(splits.validation) == {(i * 10, i % 3) for i in range(24)}


def test_links_that_lead_nowhere_are_skipped(flat, caplog):
    (flat / "loop").symlink_to("loop")
    (flat / "loop.png").symlink_to("loop.png")
    (flat / "gone.png").symlink_to("nothing.png")
    (flat / "again").symlink_to(flat)
    splits = opened(flat)
    assert len(splits.train) + len(splits.validation) == 20
    assert "loop.png is skipped: Too many levels" in caplog.text
    with pytest.raises(UserError, match=r"data\.path='.*loop'.*(no such folder|cannot be opened)"):
        opened(flat / "loop")


def test_a_single_file_is_like_a_folder_of_one_image(flat):
    options = DataOptions(source="digits", resolution=8)
    source = open_images(str(flat / "03.png"), options)
    assert len(source) == 1
    assert source[0]["image"][0, 0, 0] == 3
    assert len(open_images(str(flat), options)) == 20
    (flat / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt'.*expected an image file .* or a folder"):
        open_images(str(flat / "notes.txt"), options)
    for wrong in ("", str(flat / "none.png")):
        with pytest.raises(UserError, match=r"no such folder"):
            open_images(wrong, options)


def test_large_pictures_are_reduced_while_they_are_decoded(tmp_path):
    for i in range(2):
        PIL.Image.new("RGB", (640, 480), (90, 0, 0)).save(tmp_path / f"{i}.jpg")
    source = open_images(str(tmp_path), DataOptions(resolution=8))
    assert max(source[0]["image"].shape) <= 8 * 4 * 640 / 480
    assert EvalImage(resolution=8, channels=3)(source[0])["image"].shape == (8, 8, 3)


def test_the_fingerprint_follows_names_and_sizes(flat):
    before = opened(flat).fingerprint
    assert opened(flat).fingerprint == before
    (flat / "00.png").rename(flat / "renamed.png")
    renamed = opened(flat).fingerprint
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(flat / "renamed.png")
    assert len({before, renamed, opened(flat).fingerprint}) == 3


def test_the_fingerprint_follows_what_is_beside_the_images(flat):
    for i in range(20):
        np.save(flat / f"{i:02d}.npy", np.full(3, i))
        (flat / f"{i:02d}.txt").write_text("a cat")
    before = [opened(flat, embeddings="npy").fingerprint, opened(flat, captions="txt").fingerprint]
    np.save(flat / "03.npy", np.full(3, 99))  # of the same sizes
    (flat / "03.txt").write_text("a dog")
    after = [opened(flat, embeddings="npy").fingerprint, opened(flat, captions="txt").fingerprint]
    assert before[0] != after[0] and before[1] != after[1]


def test_cifar10_as_an_image_folder(tmp_path):
    if not os.path.exists(CIFAR10):
        pytest.skip("no ../shared/data/cifar10_train.zip beside this checkout: the JPEG folder is not read")
    with zipfile.ZipFile(CIFAR10) as archive:
        archive.extractall(tmp_path, archive.namelist()[::250])
    options = DataOptions(source="folder", path=str(tmp_path / "train"), resolution=32, flip=True)
    splits = open_splits(options, seed=0)
    assert splits.num_classes == 10
    assert len(splits.train) + len(splits.validation) == 200
    batch = next(train_batches(splits.train, options, seed=0, batch_size=64))
    assert batch["image"].shape == (64, 32, 32, 3)
    assert 80 < batch["image"].mean() < 160
    assert len(np.unique(batch["label"])) > 5
