"""The report in a browser: pictures are loaded, nothing is fetched, no errors, light and dark mode."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from binlatent.evaluate.report import figures
from binlatent.evaluate.report.page import Picture, Report, render
from binlatent.evaluate.result import EvaluationResult, Score

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def noise(h, w, c=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), dtype=np.uint8)


def example():
    scores = [Score(key="psnr", name="PSNR", value=21.123456, error=0.2, unit="dB", better="higher")]
    settings = {"versions": {"jax": "0.10"}, "feature_networks": [{"name": "classifier"}], "notes": ["few samples"]}
    parts = {
        "reconstruction": EvaluationResult(settings=settings, scores=scores, skipped={"LPIPS": "no <weights>"}),
        "likelihood": EvaluationResult(
            settings={"seed": 0}, scores=[], curves={"bound_by_time": {"time": [0, 0.5, 1], "bits_per_bit": [0.3, 0.1]}}
        ),
        "code": EvaluationResult(
            settings={}, scores=[], curves={"bit_mean": [0.2, 0.5, 0.7], "bit_correlation": np.eye(3).tolist()}
        ),
        "generation": EvaluationResult(settings={}, scores=[], tables={"classes": [{"class": "a & b", "samples": 3}]}),
    }
    sweep = [
        {
            "steps": s,
            "guidance": 0.0,
            "temperature": 1.0,
            "posterior": p,
            "Fréchet distance (classifier features)": 1 / s,
        }
        for s in (4, 8, 16)
        for p in ("mixture", "plugin")
    ]
    records = [{"step": s, "train/loss": 1 / s, "validation/psnr": 20 + s, "train/other": 1} for s in range(1, 30)]
    records += [{"step": s, "evaluation/inception/score": 1.0, "evaluation/once": s} for s in (10, 20)]
    del records[-1]["evaluation/once"]
    return Report(
        title="digits <run>", facts={"images": "8×8"}, config={"prior.width": 16}, records={"prior": records}, parts=parts,
        sweep=sweep, sweep_curves={"Fréchet distance (classifier features)": {"mixture": ((4, 8, 16), (3.0, 2.0, 1.0))}},
        reconstructions=Picture(image=noise(20, 30), caption="originals above"),
        samples=Picture(image=noise(20, 30, 3), caption="classes"),
        film=[Picture(image=noise(9, 40, seed=i), caption=f"film {i}") for i in range(2)],
    )  # fmt: skip


def test_sections_numbers_and_settings():
    page = render(example())
    for text in ("digits &lt;run&gt;", "21.123", "0.2", "no &lt;weights&gt;", "a &amp; b", "versions.jax", "0.10",
                 "feature_networks.0.name", "prior.width", "Score against sampling steps", "few samples"):  # fmt: skip
        assert text in page, text
    assert page.count("<img") == 5 and page.count("<svg") == 6
    assert "once" not in page and "prior: inception/score" in page
    assert "other" not in re.sub(r"base64,[^\"]+", "", page)
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert figures.INK not in page and "currentColor" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)


def test_what_is_missing_names_its_command():
    page = render(Report(title="t", facts={}, config={}, records={}, parts={}))
    for command in ("binlatent run", "binlatent evaluate", "binlatent sweep"):
        assert command in page


def test_page_is_well_formed():
    open_tags = []
    void = {"meta", "link", "img", "path", "use", "rect"}

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in void:
                open_tags.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            if tag not in void:
                assert open_tags.pop() == tag

    Reader().feed(render(example()))
    assert open_tags == []


def test_bit_pictures_show_every_bit():
    codes = np.random.default_rng(0).random((2, 3, 4, 6)) < 0.5
    pictures = figures.bit_picture(codes)
    assert pictures.shape == (2, 6, 12, 1)
    np.testing.assert_array_equal((pictures < 128).sum((1, 2, 3)), codes.sum((1, 2, 3)))
    assert (pictures[1, 2:4, 3:6, 0] < 128).ravel().tolist() == codes[1, 1, 1].tolist()


def browse(folder, page, *flags):
    """Opens a page in headless Chromium without a network; returns (its DOM, if any, and its log)."""
    path = folder / "report.html"
    path.write_text(page)
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", *flags, path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the report is not opened in a browser")
def test_browser_loads_every_picture_without_an_error(tmp_path):
    probe = """<script>onload = () => {
      const loaded = [...document.images].filter(i => i.complete && i.naturalWidth > 1).length;
      const drawn = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width > 50).length;
      document.querySelector("button[data-copy]").click();
      document.body.dataset.probe = [loaded, document.images.length, drawn, performance.getEntriesByType("resource")
        .filter(e => !e.name.startsWith("data:")).length, document.body.scrollWidth <= innerWidth].join();
    }</script>"""
    page = render(example()).replace("</body>", probe + "</body>")
    dom, said = browse(tmp_path, page, "--dump-dom", "--window-size=1200,900")
    assert 'data-probe="5,5,6,0,true"' in dom
    assert ">copied<" in dom
    assert "CONSOLE" not in said, said
    _, said = browse(tmp_path, page.replace("const loaded", "nothing(); const loaded"), "--dump-dom")
    assert "CONSOLE" in said  # an error would have been seen


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the report is not opened in a browser")
def test_light_and_dark(tmp_path):
    corners = {}
    for scheme, value in (("light", 1), ("dark", 0)):
        shot = tmp_path / f"{scheme}.png"
        browse(
            tmp_path, render(example()), f"--screenshot={shot}", "--window-size=900,600",
            f"--blink-settings=preferredColorScheme={value}",
        )  # fmt: skip
        corners[scheme] = np.asarray(Image.open(shot).convert("L"))
    assert corners["light"][2, 2] > 240 and corners["dark"][2, 2] < 40
    assert corners["light"].min() < 80 and corners["dark"].max() > 180  # and there is text on it
