"""Output of images: arrays, pictures, folders; and errors that are raised before any work is done."""

import numpy as np
import pytest
from PIL import Image

from binlatent.cli.sink import ImageSink
from binlatent.errors import UserError

IMAGES = np.linspace(0, 255, 3 * 4 * 6 * 3).reshape(3, 4, 6, 3).astype(np.uint8)


def fill(path, labels=None, names=None, **expect):
    sink = ImageSink(path)
    sink.expect(len(IMAGES), IMAGES.shape[1:], **expect)
    with sink:
        sink.add(IMAGES, labels, names)
    return sink


def test_arrays(tmp_path):
    fill(tmp_path / "a.npz", labels=np.array([2, 0, 1]), names=["x", "y/z", None])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], IMAGES)
        assert arrays["labels"].dtype == np.int32 and arrays["labels"].tolist() == [2, 0, 1]
        assert arrays["names"].tolist() == ["x", "y/z", "000002-1"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]  # no temporary file is left


@pytest.mark.parametrize(
    ("name", "kind"), [("a.PNG", "PNG"), ("a.jpg", "JPEG"), ("a.Jpeg", "JPEG"), ("a.webp", "WEBP")]
)
def test_the_suffix_determines_the_format(tmp_path, name, kind):
    fill(tmp_path / name, columns=2)
    with Image.open(tmp_path / name) as picture:
        assert picture.format == kind
        assert picture.size[0] / picture.size[1] == 13 / 9  # 2×2 cells of 6×4 pixels with a gap of 1


@pytest.mark.parametrize("name", ["a.webp", "a.jpg"])
def test_a_tall_picture_is_enlarged_as_far_as_its_format_allows(tmp_path, name):
    sink = ImageSink(tmp_path / name)
    sink.expect(600, (8, 8, 1), columns=1)
    with sink:
        sink.add(np.zeros((600, 8, 8, 1), np.uint8))
    with Image.open(tmp_path / name) as picture:
        width, height = picture.size
        assert width % 8 == 0 and height == (600 * 9 - 1) * width // 8


@pytest.mark.parametrize("name", ["folder", "run_v0.5", "a.b.c", "x.png/"])
def test_folders(tmp_path, name):
    fill(f"{tmp_path}/{name}", labels=np.array([5, 6, 7]), names=[None, "sub/mine", None])
    folder = tmp_path / name
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png")) == [
        "000000-5.png",
        "000002-7.png",
        "sub/mine.png",
    ]
    assert np.array_equal(Image.open(folder / "000002-7.png"), IMAGES[2])


def test_a_folder_is_not_filled_twice(tmp_path):
    fill(tmp_path / "folder")
    with pytest.raises(UserError, match="already holds 3 images"):
        ImageSink(tmp_path / "folder")


def test_an_error_leaves_neither_a_file_nor_an_empty_folder(tmp_path):
    for name in ("a.png", "a.npz", "folder"):
        with pytest.raises(ZeroDivisionError), ImageSink(tmp_path / name) as sink:
            if not sink.is_folder:
                sink.add(IMAGES)
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_too_many_images_for_a_file_are_refused_beforehand(tmp_path):
    arrays, picture, tall = ImageSink(tmp_path / "a.npz"), ImageSink(tmp_path / "a.png"), ImageSink(tmp_path / "a.webp")
    arrays.expect(40_000, (256, 256, 3))
    with pytest.raises(UserError, match="50,000 images are 9 GiB"):
        arrays.expect(50_000, (256, 256, 3))
    picture.expect(2000, (256, 256, 3))
    with pytest.raises(UserError, match="a picture of 3,000 images"):
        picture.expect(3000, (256, 256, 3))
    with pytest.raises(UserError, match=r"too many for \.webp"):
        tall.expect(100, (256, 256, 3), columns=1)


def test_tables(tmp_path):
    for name, table in (("folder", "folder/psnr.csv"), ("r.png", "r.psnr.csv")):
        with ImageSink(tmp_path / name) as sink:
            sink.add(IMAGES)
            path = sink.table(("file", "psnr_db"), [("a, b.png", 1.5), ("\udcff.png", 2)], "psnr")
        assert path == sink.path.parent / table
        assert (tmp_path / table).read_text() == 'file,psnr_db\n"a, b.png",1.5\n\\udcff.png,2\n'
