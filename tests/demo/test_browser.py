"""The page in a real browser: every kind of request, the brush, two clients, wrong input."""

import base64

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the page's extra is not installed: pip install binlatent[demo]")
pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")

from selenium.webdriver.common.by import By

from tests import tiny
from tests.demo.browser import Page, browser, missing
from tests.demo.serving import result, serving
from tests.demo.test_server import pixels


@pytest.fixture(scope="module")
def address(trained):
    with serving(trained) as address:
        yield address


@pytest.fixture(scope="module")
def captions_address(captioned):
    with serving(captioned) as address:
        yield address


@pytest.fixture(scope="module")
def driver():
    if reason := missing():
        pytest.skip(reason)
    with browser() as driver:
        yield driver


@pytest.fixture
def page(driver, address):
    yield Page(driver, address)
    check_log(driver)


@pytest.fixture
def captions_page(driver, captions_address):
    yield Page(driver, captions_address)
    check_log(driver)


def check_log(driver):
    """No message of the browser's, but of requests that the server refuses."""
    severe = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in severe if " 400 " not in message], severe


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(tiny.images(1)[0, ..., 0].repeat(5, 0).repeat(5, 1)).save(tmp_path / "mine.png")
    return str(tmp_path / "mine.png")


def test_sample(page, address):
    images, error = page.make(num=3, seed=7, steps=3)
    assert not error
    assert images == result(address, kind="sample", num=3, seed=7, steps=3)["images"]
    page.wait(lambda: page.shown() == 3)
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#film figure")) == 4
    assert "binlatent sample --workdir" in page.text("command")
    assert page.text("command").endswith("--steps 3 --guidance 0.0 --temperature 1.0 --out images")
    assert page.text("status").startswith("3 images in ")


def test_prompts(captions_page, captions_address):
    page, asked = captions_page, {"prompt": "a red square", "negative_prompt": "blue", "num": 3, "guidance": 2}
    images, error = page.make(steps=3, seed=7, **asked)
    assert not error
    assert images == result(captions_address, kind="sample", steps=3, seed=7, **asked)["images"]
    assert "--prompt='a red square' --negative_prompt=blue --steps 3" in page.text("command")
    others = page.make(prompt="square, blue")[0]
    assert len(others) == 3 and others != images
    page.make(guidance=0, prompt="red " * 9)
    assert "2 prompts are longer than the 3 tokens" in page.text("notes")
    assert "no effect where guidance is 0" in page.text("notes")
    assert page.make(prompt="a" * 1001)[1] == "prompt has 1,001 characters: at most 1,000 are taken"
    assert page.make(prompt=" ")[1] == "prompt is empty: a sentence is expected"
    assert "negative prompts are given without prompts" in page.make(prompt="")[1]


def test_there_are_no_prompts_without_texts(page):
    assert not page.find("prompt").is_displayed()


def test_download(page, tmp_path):
    page.driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    images, _ = page.make(num=2, steps=3)
    page.find("download").click()
    names = ["000000.png", "000001.png", "command.txt"]
    page.wait(lambda: sorted(path.name for path in tmp_path.iterdir()) == names)
    found = [(tmp_path / name).read_bytes() for name in names]
    assert found[:2] == [base64.b64decode(url.partition(",")[2]) for url in images]
    assert found[2].decode().strip() == page.text("command")


def test_the_brush(page, picture):
    page.tab("inpaint")
    page.choose("picture", picture)
    page.stroke((6.5, 6.5), (0, 1), (1, 0))
    images, error = page.make(num=2, steps=3, passes=2)
    assert not error
    assert len(images) == 2
    asked = page.driver.execute_script("return asked")
    mask, given = (pixels(asked[name])[..., 0] for name in ("mask", "picture"))
    assert set(np.unique(mask)) == {0, 255}
    assert 0 < (mask[5:, 5:] > 0).mean() < 1
    assert not mask[:4].any()
    for image in images:
        assert np.array_equal(pixels(image)[:3, :, 0], given[:3])
    page.find("clear").click()
    assert "the mask is empty" in page.make()[1]


def test_vary_and_interpolate(page, picture):
    page.tab("vary")
    page.choose("picture", picture)
    images, error = page.make(num=2, steps=3, strength=0)
    assert (images[0] == images[1], error) == (True, "")  # the reconstruction, twice
    page.tab("interpolate")
    page.choose("second", picture)
    images, error = page.make(num=3)
    assert (len(images), error) == (3, "")


def test_two_clients_at_once(page, address):
    first = page.driver.current_window_handle
    page.fill(num=9, seed=1, steps=3)
    page.driver.switch_to.new_window("tab")
    other = Page(page.driver, address)
    other.fill(num=2, seed=2, steps=3)
    other.find("go").click()
    page.driver.switch_to.window(first)
    page.find("go").click()
    page.wait(lambda: page.shown() == 9)
    page.driver.switch_to.window(next(handle for handle in page.driver.window_handles if handle != first))
    other.wait(lambda: other.shown() == 2)
    images = page.driver.execute_script("return made.images")
    page.driver.close()
    page.driver.switch_to.window(first)
    assert images == result(address, kind="sample", num=2, seed=2, steps=3)["images"]
    assert page.driver.execute_script("return made.images.length") == 9


def test_wrong_input_is_answered(page, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    images, error = page.make(num=1_000_000)
    assert (images, error) == ([], "num is 1000000: a number from 1 to 64 is expected")
    images, error = page.make(num=2, steps="")
    assert (images, error) == ([], "steps has no value")
    page.tab("inpaint")
    page.find("picture").send_keys(str(tmp_path / "notes.png"))
    page.wait(lambda: page.text("error"))
    assert page.text("error").startswith("the picture cannot be read: not an image")
    assert page.make(num=1, steps=3)[1] == "inpaint needs a picture: choose one"
