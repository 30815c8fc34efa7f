"""The page at `/` in a real browser (Debian's chromium and chromedriver)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from reverie_testing.product import Product, until

DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(DRIVER is None, reason="needs chromium and chromedriver")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A headless browser with an empty profile that asks nobody outside."""
    options = ChromeOptions()
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=900,1000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    yield driver
    driver.quit()


def picture_is_final(driver: Chrome) -> bool:
    """Whether the page shows a loaded picture from storage, no preview."""
    script = "const i = document.getElementById('picture'); return i.naturalWidth > 0 && i.src"
    source = driver.execute_script(script)
    return bool(source) and "/storage/" in str(source)


def test_a_person_types_a_prompt_and_sees_the_picture(product: Product, browser: Chrome) -> None:
    browser.get(product.url)
    prompt = browser.find_element(By.ID, "prompt")
    prompt.clear()
    prompt.send_keys("a yellow star on a black background")
    browser.find_element(By.ID, "go").click()
    WebDriverWait(browser, 60).until(picture_is_final)
    assert "seed" in browser.find_element(By.ID, "words").text


def start_slow_job(product: Product, browser: Chrome) -> str:
    """A slow job that the page takes for its own, as after a submit of its own."""
    browser.get(product.url)
    job_id = product.submit(num_inference_steps=100, size="64x64")
    browser.execute_script("localStorage.setItem('job', arguments[0])", job_id)
    return job_id


def test_a_reload_in_mid_job_shows_its_progress_and_then_the_picture(
    product: Product, browser: Chrome
) -> None:
    job_id = start_slow_job(product, browser)
    browser.refresh()
    WebDriverWait(browser, 60).until(lambda driver: driver.find_element(By.ID, "steps").text)
    browser.refresh()
    WebDriverWait(browser, 60).until(picture_is_final)
    assert product.finished(job_id)["state"] == "completed"


def test_the_cancel_button_stops_the_job(product: Product, browser: Chrome) -> None:
    job_id = start_slow_job(product, browser)
    browser.refresh()
    WebDriverWait(browser, 60).until(lambda driver: driver.find_element(By.ID, "steps").text)
    browser.find_element(By.ID, "stop").click()
    assert product.finished(job_id)["state"] == "cancelled"
    WebDriverWait(browser, 60).until(lambda driver: driver.find_element(By.ID, "go").is_displayed())


def test_the_page_comes_back_by_itself_when_the_gateway_was_killed(product: Product, browser: Chrome) -> None:
    browser.get(product.url)
    killed = product.kill("reverie_gateway")
    until(lambda: product.pid_of("reverie_gateway") != killed, "the gateway to come back")
    prompt = browser.find_element(By.ID, "go")
    prompt.click()
    WebDriverWait(browser, 60).until(picture_is_final)
