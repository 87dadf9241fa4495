"""The page in a headless browser, for tests and for the pictures of the documentation."""

import contextlib
import shutil

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
WAIT = 60  # seconds, of a busy machine


def missing():
    """Why there is no browser; empty where there is one."""
    found = BROWSER and DRIVER
    return "" if found else "no Chromium with chromedriver on this machine: apt-get install chromium chromium-driver"


@contextlib.contextmanager
def browser(size="1100,900"):
    """A driver of Chromium with a window of `size` pixels."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={size}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(WAIT)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a person sees and does."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)
        self.wait(lambda: "pixels" in self.text("model"))

    def wait(self, condition):
        return WebDriverWait(self.driver, WAIT).until(lambda _: condition())

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def text(self, name):
        return self.find(name).text

    def tab(self, kind):
        self.driver.find_element(By.CSS_SELECTOR, f"nav [data-kind={kind}]").click()

    def fill(self, **values):
        for name, value in values.items():
            field = self.find(name)
            field.clear()
            field.send_keys(str(value))

    def make(self, **values):
        """Fills in, clicks, and waits for images or an error: (data URLs, error)."""
        self.fill(**values)
        self.driver.execute_script("made = null; document.getElementById('error').textContent = ''")
        self.find("go").click()
        self.wait(lambda: self.driver.execute_script("return made && made.images") or self.text("error"))
        return self.driver.execute_script("return made ? made.images : []"), self.text("error")

    def shown(self):
        """Images of the result that the browser has drawn."""
        script = "return [...document.querySelectorAll('#images img')].filter(i => i.complete && i.naturalWidth).length"
        return self.driver.execute_script(script)

    def choose(self, name, file):
        """Gives a file to `picture` or `second`, and waits until it is shown."""
        self.find(name).send_keys(str(file))
        self.wait(lambda: self.find({"picture": "board", "second": "second-view"}[name]).is_displayed())

    def stroke(self, start, *moves):
        """A stroke of the brush, from (x, y), by moves, all in pixels of the model."""
        mask = self.find("mask")
        scale = mask.size["width"] / self.driver.execute_script("return resolution")
        left, top = (
            place * scale - mask.size["width"] / 2 for place in start
        )  # an element's offsets are from its middle
        chain = ActionChains(self.driver).move_to_element_with_offset(mask, left, top).click_and_hold()
        for x, y in moves:
            chain.move_by_offset(x * scale, y * scale)
        chain.release().perform()

    def select(self, name, value):
        """Chooses an option of a list."""
        self.driver.find_element(By.CSS_SELECTOR, f"#{name} option[value='{value}']").click()
