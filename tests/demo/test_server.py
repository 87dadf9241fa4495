"""The page's server: what it makes is what the library and the command line make; wrong requests get an answer."""

import base64
import io
import shlex
import threading

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page's extra is not installed: pip install binlatent[demo]")
pytest.importorskip("uvicorn", reason="the page's extra is not installed: pip install binlatent[demo]")

import binlatent
from binlatent.cli.main import main
from binlatent.demo.jobs import MOST_WAITING, Busy, Jobs
from binlatent.demo.requests import LARGEST_UPLOAD, bits_picture, from_url, to_url
from binlatent.errors import UserError
from tests import tiny
from tests.demo.serving import ask, result, serving

SAMPLE = {"kind": "sample", "num": 3, "seed": 5, "label": "2", "steps": 3, "guidance": 1.0, "temperature": 0.9}


@pytest.fixture(scope="module")
def address(trained):
    with serving(trained) as address:
        yield address


@pytest.fixture(scope="module")
def captions_address(captioned):
    with serving(captioned) as address:
        yield address


@pytest.fixture(scope="module")
def model(trained):
    return binlatent.load(trained)


def pixels(url):
    return from_url("result", url, 8, 1)


def by_command(made, folder, monkeypatch, **pictures):
    """The images of the command that came with a result, run beside the pictures that the page gives."""
    monkeypatch.chdir(folder)
    for name, url in pictures.items():
        (folder / f"{name}.png").write_bytes(base64.b64decode(url.partition(",")[2]))
    main(shlex.split(made["command"])[1:])
    files = sorted(file for file in (folder / "images").glob("*.png") if "known" not in file.name)
    return [np.asarray(Image.open(file))[..., None] for file in files]


def test_samples_are_those_of_library_and_command(address, model, tmp_path, monkeypatch):
    made = result(address, **SAMPLE)
    images = [pixels(url) for url in made["images"]]
    again = model.sample(seed=5, num=3, labels=2, steps=3, guidance=1.0, temperature=0.9)
    np.testing.assert_allclose(images, 255 * again, atol=0.51)
    assert np.array_equal(images, by_command(made, tmp_path, monkeypatch))
    assert [frame["step"] for frame in made["film"]] == [0, 1, 2, 3]
    assert np.array_equal(pixels(made["film"][-1]["image"]), images[0])


@pytest.mark.parametrize(
    "change",
    [{"kind": "inpaint", "passes": 2, "label": ""}, {"kind": "vary", "strength": 0.4}, {"kind": "interpolate"}],
)
def test_edits_are_those_of_the_command(address, tmp_path, monkeypatch, change):
    mask = np.zeros((8, 8, 1), np.uint8)
    mask[3:] = 255
    first, second = (to_url(image) for image in tiny.images(2))
    made = result(address, **SAMPLE | {"picture": first, "second": second, "mask": to_url(mask)} | change)
    assert "images" in made, made
    if change["kind"] == "interpolate":
        (tmp_path / "pictures").mkdir()
        named = {"pictures/1": first, "pictures/2": second}
    else:
        named = {"picture": first, "mask": to_url(mask)}
    again = by_command(made, tmp_path, monkeypatch, **named)
    assert np.array_equal([pixels(url) for url in made["images"]], again)


PROMPTED = {"kind": "sample", "num": 3, "seed": 5, "steps": 3, "guidance": 2.0, "prompt": "a  red square"}


@pytest.mark.parametrize("change", [{"negative_prompt": "-blue $(id)"}, {"kind": "vary", "guidance": 0.0}])
def test_prompts_are_those_of_the_command(captions_address, tmp_path, monkeypatch, change):
    asked = PROMPTED | {"picture": to_url(tiny.images(1)[0])} | change
    made = result(captions_address, **asked)
    assert "--prompt='a red square'" in made["command"]
    again = by_command(made, tmp_path, monkeypatch, picture=asked["picture"])
    assert np.array_equal([pixels(url) for url in made["images"]], again)
    other = result(captions_address, **asked | {"prompt": "square, blue"})
    assert other["images"] != made["images"]


def test_what_had_no_effect_is_said(captions_address):
    long = PROMPTED | {"prompt": "red " * 50, "negative_prompt": "blue", "guidance": 0.0}
    cut, unused = result(captions_address, **long)["notes"]
    assert cut.startswith("1 of 2 prompts are longer than the 3 tokens") and "guidance is 0" in unused
    assert result(captions_address, **PROMPTED)["notes"] == []


def test_whether_a_model_takes_prompts(address, captions_address):
    found = [ask(each, "GET", "/model")[1]["prompts"] for each in (address, captions_address)]
    assert found == [False, True]


def test_more_than_a_batch(address, model):
    made = result(address, **SAMPLE | {"num": 11, "label": ""})
    again = model.sample(seed=5, num=11, steps=3, guidance=1.0, temperature=0.9)
    np.testing.assert_allclose([pixels(url) for url in made["images"]], 255 * again, atol=0.51)


def test_two_clients_at_once_get_each_their_own(address):
    found = {}

    def client(seed):
        found[seed] = result(address, **SAMPLE | {"seed": seed})["images"]

    threads = [threading.Thread(target=client, args=(seed,)) for seed in (1, 2, 3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(found[seed] == result(address, **SAMPLE | {"seed": seed})["images"] for seed in (1, 2, 3))
    assert len({tuple(images) for images in found.values()}) == 3


def test_bits_as_a_picture():
    code = np.zeros((2, 3, 5), bool)
    code[1, 2, 4] = True
    picture = bits_picture(code)
    assert picture.shape == (6, 12, 1)  # cells of 2 × 3 bits and a line
    assert (picture == 255).sum() == 1
    assert picture[4, 9, 0] == 255


def test_a_full_queue_refuses():
    jobs, gate = Jobs(), threading.Event()
    first = jobs.add(lambda progress: gate.wait(30))
    while jobs.state(first)["state"] != "running":
        pass
    names = [jobs.add(lambda progress: "done") for _ in range(MOST_WAITING)]
    assert jobs.state(names[2])["ahead"] == 3
    with pytest.raises(Busy, match="16 requests are waiting"):
        jobs.add(lambda progress: "done")
    jobs.cancel(names[0])
    gate.set()
    while jobs.state(names[-1])["state"] != "done":
        pass
    assert jobs.state(names[0])["state"] == "cancelled"
    assert jobs.state("another") is None
    jobs.stop()


PICTURE = to_url(tiny.images(1)[0])
BLANK = to_url(np.zeros((8, 8, 1), np.uint8))
TEXT = "data:image/png;base64," + base64.b64encode(b"no image at all").decode()


def huge_picture():
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num": 1_000_000}, "num is 1000000: a number from 1 to 64"),
        ({"steps": 0}, "steps is 0: a number from 1 to 256"),
        ({"steps": 1e9}, "steps is 1000000000.0: an integer is expected"),
        ({"seed": -1}, "seed is -1"),
        ({"guidance": float("nan")}, "guidance is nan: a number is expected"),
        ({"temperature": None}, "temperature has no value"),
        ({"temprature": 1}, "no key 'temprature'; did you mean temperature"),
        ({"kind": "print"}, "whose kind is one of sample, inpaint"),
        ({"prompt": " \n"}, "prompt is empty: a sentence is expected"),
        ({"prompt": "a" * 1001}, "prompt has 1,001 characters: at most 1,000"),
        ({"prompt": ["a cat"]}, "prompt"),
        ({"negative_prompt": " "}, "negative_prompt is empty"),
        ({"kind": "vary"}, "vary needs a picture"),
        ({"kind": "inpaint", "picture": PICTURE}, "inpaint needs a mask"),
    ],
)
def test_wrong_requests_are_refused(address, change, message):
    status, answer = ask(address, "POST", "/jobs", SAMPLE | change)
    assert (status, message in answer["error"]) == (400, True), answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "cat"}, "label 'cat' is no class"),
        ({"label": "3"}, "label 3 is no class"),
        ({"prompt": "a cat"}, "this model was trained without texts"),
        ({"kind": "inpaint", "picture": PICTURE, "mask": BLANK}, "the mask is empty: mark the pixels to replace"),
        ({"kind": "inpaint", "picture": TEXT, "mask": BLANK}, "the picture cannot be read: not an image"),
        ({"kind": "interpolate", "picture": PICTURE, "second": PICTURE, "num": 1}, "at least 2 images"),
    ],
)
def test_requests_that_do_not_fit_the_model_fail_with_a_reason(address, change, message):
    assert message in result(address, **SAMPLE | change)


def test_a_negative_prompt_alone(captions_address):
    assert "without prompts" in result(captions_address, **PROMPTED | {"prompt": "", "negative_prompt": "blue"})


def test_wrong_bodies_and_uploads_are_refused(address):
    def error(path, body, **more):
        status, answer = ask(address, "POST", path, body, **more)
        return status, answer["error"]

    assert error("/picture", {"picture": TEXT})[1].startswith("the picture cannot be read: not an image")
    assert error("/picture", {"picture": "hello"}) == (400, "the picture is no image file")
    assert "pixels; at most" in error("/picture", {"picture": huge_picture()})[1]
    assert error("/picture", {}) == (400, "a picture is expected")
    assert error("/jobs", b"{")[1].startswith("the body is not JSON")
    assert error("/jobs", b"kind=sample", content_type="application/x-www-form-urlencoded")[1].startswith(
        "the body must"
    )
    assert error("/jobs", [1])[1] == "a JSON object is expected"
    assert ask(address, "GET", "/jobs/nothing")[0] == 400
    assert ask(address, "GET", "/model", host="evil.example")[0] == 400


def test_an_upload_that_is_too_large_is_cut_off(address):
    try:
        status, answer = ask(address, "POST", "/picture", b" " * (LARGEST_UPLOAD + 2**20))
    except OSError:
        return  # the server has hung up, which the client may notice first
    assert status == 413
    assert "make the picture smaller" in answer["error"]


def test_no_port(trained):
    with serving(trained) as address, pytest.raises(UserError, match="nothing can listen at 127"):
        main_demo(trained, address.rpartition(":")[2])


def main_demo(workdir, port):
    from binlatent.demo.run import serve

    serve(str(workdir), host="127.0.0.1", port=int(port))
