"""Pictures of the web map for the documentation, taken in headless Chromium.

    python scripts/screenshots.py DATA MAP [AUDIT.gpkg] --output docs/images

Starts `landcover view` on the files, opens it as on a desk and as on a phone, and writes view_swipe.png,
view_point.png, view_audit.png (with an audit) and view_phone.png. An audit is only looked at.
"""

import argparse
import io
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

DESK, PHONE = (1280, 800), (390, 780)

FLAGS = (
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update',
)  # fmt: skip


@contextmanager
def served(paths: list[Path]) -> Iterator[str]:
    """The address of `landcover view` on some files."""
    command = [sys.executable, '-m', 'landcover_plugin', 'view', *map(str, paths), '--port', '0', '--no-open']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        found = re.search(r'http://\S+', server.stdout.readline() if server.stdout else '')
        try:
            if not found:
                sys.exit('landcover view did not start')
            yield found[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(
        filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f'--user-data-dir={profile}'):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which('chromedriver')))
        try:
            yield driver
        finally:
            driver.quit()


class Camera:
    """Takes pictures of the page."""

    def __init__(self, driver: webdriver.Chrome, url: str, folder: Path) -> None:
        self.driver, self.url, self.folder = driver, url, folder

    def open(self, size: tuple[int, int]) -> None:
        """Load the page on a screen of this size in pixels."""
        width, height = size
        metrics = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 800}
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        self.driver.get('about:blank')
        self.driver.get(self.url)
        time.sleep(3)

    def keys(self, keys: str) -> None:
        """Press keys."""
        self.driver.find_element('css selector', 'body').send_keys(keys)
        time.sleep(2)

    def click_at(self, x: int, y: int) -> None:
        """Click a place of the screen."""
        for kind in ('mousePressed', 'mouseReleased'):
            event = {'type': kind, 'x': x, 'y': y, 'button': 'left', 'clickCount': 1}
            self.driver.execute_cdp_cmd('Input.dispatchMouseEvent', event)
        time.sleep(2)

    def take(self, name: str) -> None:
        """Write a picture."""
        path = self.folder / f'view_{name}.png'
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert('RGB')
        picture.save(path, optimize=True)  # all colours: those of classes mean something
        print(f'{path}: {path.stat().st_size / 1000:.0f} kB')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('paths', nargs='+', type=Path, metavar='FILE', help='what landcover view takes')
    parser.add_argument('--output', type=Path, required=True, metavar='DIR')
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with served(args.paths) as url, chromium() as driver:
        camera = Camera(driver, url, args.output)
        camera.open(DESK)
        camera.keys('s')
        camera.take('swipe')
        camera.keys('s')
        camera.click_at(600, 455)
        camera.take('point')
        if driver.find_element('id', 'panel-audit').is_displayed():
            camera.open(DESK)
            camera.keys('n')
            camera.take('audit')
        camera.open(PHONE)
        camera.click_at(200, 425)
        camera.take('phone')


if __name__ == '__main__':
    main()
