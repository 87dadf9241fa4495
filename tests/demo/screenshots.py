"""The pictures of docs/demo.md: the page in a headless browser, doing each thing.

python -m tests.demo.screenshots --digits runs/digits --captions runs/captions --out docs
"""

import argparse
import pathlib
import tempfile

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tests.demo.browser import Page, browser
from tests.demo.serving import serving


def digit(folder, number):
    """A digit of the data set as a file."""
    path = pathlib.Path(folder) / f"digit{number}.png"
    Image.fromarray((load_digits().images[number] / 16 * 255).astype(np.uint8)).save(path)
    return path


def shoot(page, path, **values):
    """Fills in, waits for the images, and takes the picture."""
    images, error = page.make(**values)
    assert not error, error
    page.wait(lambda: page.shown() == len(images))
    page.driver.execute_script("scrollTo(0, 0)")
    page.driver.save_screenshot(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", help="a model of 8×8 digits with classes")
    parser.add_argument("--captions", help="a model of captions")
    parser.add_argument("--prompt", default="the digit three")
    parser.add_argument("--negative_prompt", default="")
    parser.add_argument("--out", default="docs", type=pathlib.Path)
    args = parser.parse_args()
    with browser("1130,950") as driver, tempfile.TemporaryDirectory() as folder:
        if args.captions:
            with serving(args.captions) as address:
                words = {"prompt": args.prompt, "negative_prompt": args.negative_prompt, "guidance": 1}
                shoot(Page(driver, address), args.out / "demo_prompt.png", num=16, seed=1, **words)
        if not args.digits:
            return
        with serving(args.digits) as address:
            page = Page(driver, address)
            page.select("label", "3")
            shoot(page, args.out / "demo_sample.png", num=16, seed=4)
            page.select("label", "")
            page.tab("inpaint")
            page.choose("picture", digit(folder, 1790))
            page.stroke((1, 5), (2, 0), (2, 0), (2, 0))
            page.stroke((1, 7), (2, 0), (2, 0), (2, 0))
            shoot(page, args.out / "demo_inpaint.png", num=16, seed=1)
            page.tab("vary")
            shoot(page, args.out / "demo_vary.png", num=16, seed=1, strength=0.6)
            page.tab("interpolate")
            page.choose("second", digit(folder, 1791))
            shoot(page, args.out / "demo_interpolate.png", num=8, seed=1)


if __name__ == "__main__":
    main()
