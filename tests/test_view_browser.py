"""The web map in a real browser, headless Chromium: what a person does, and what is then on the screen."""

import io
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from conftest import write_raster
from numpy.typing import NDArray
from PIL import Image
from test_view import write_audit

from landcover_plugin.datasets.simulated import Scene
from landcover_plugin.grid import PixelGrid
from landcover_plugin.legend import LEGEND
from landcover_plugin.rasters.landcover import LabelRasters
from landcover_plugin.rasters.mosaics import Mosaics

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
DRIVER = shutil.which('chromedriver')

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason='needs Chromium and its chromedriver'),
]

FLAGS = (
    '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update',
)  # fmt: skip


@pytest.fixture(scope='module')
def files(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The simulated scene, a map that errs in the west, its probabilities, and an audit of three places."""
    folder = tmp_path_factory.mktemp('view')
    root = scene.paths[0].parent
    grid: PixelGrid = Mosaics(root).grid
    codes = LabelRasters(root).read_codes(grid)
    predicted = codes.copy()
    predicted[:, : grid.width // 3] = np.where(codes[:, : grid.width // 3] > 0, 6, 0)
    place = {'origin': grid.origin, 'gsd': grid.res, 'crs': grid.crs}
    shares = np.stack([np.where(predicted == c, 78, 2) for c in LEGEND.codes]).astype(np.uint8)
    write_raster(folder / 'map.tif', predicted, nodata=0, **place)
    write_raster(
        folder / 'map_probabilities.tif', np.where(predicted, shares, 255).astype(np.uint8), nodata=255, **place
    )
    x, y = grid.origin
    audit = write_audit(folder / 'audit.gpkg', 3)
    frame = gpd.read_file(audit)
    frame.geometry = [shapely.box(x + 500 * n, y - 900, x + 500 * n + 200, y - 700) for n in (1, 2, 3)]
    frame.to_file(audit, layer='suspects')
    return [root, folder / 'map.tif', audit]


@pytest.fixture(scope='module')
def url(files: list[Path]) -> Iterator[str]:
    command = [sys.executable, '-m', 'landcover_plugin', 'view', *map(str, files), '--port', '0', '--no-open']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        found = re.search(r'http://\S+', server.stdout.readline())
        assert found
        yield found[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


class Page:
    """What a person does with the page, and sees of it."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self, size: tuple[int, int], address: str = '') -> None:
        width, height = size
        metrics = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 800}
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        self.driver.get('about:blank')
        self.driver.get(address or self.url)
        self.until(lambda: self.js('return document.body.dataset.ready === "yes"'))
        self.settle()

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def until(self, true: Callable[[], Any], seconds: float = 15) -> Any:
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, 'the page did not get there'
            time.sleep(0.05)
        return found

    def settle(self) -> None:
        """Wait until all tiles are there and painted."""
        self.until(lambda: self.js("return ![...document.querySelectorAll('.leaflet-tile')].some((t) => !t.complete)"))
        time.sleep(0.6)  # Leaflet fades them in for 0.2 s, and the address follows

    def key(self, key: str) -> None:
        self.driver.find_element('css selector', 'body').send_keys(key)
        self.settle()

    def click(self, css: str) -> None:
        self.driver.find_element('css selector', css).click()
        self.settle()

    def click_at(self, x: float, y: float) -> None:
        for kind in ('mousePressed', 'mouseReleased'):
            event = {'type': kind, 'x': x, 'y': y, 'button': 'left', 'clickCount': 1}
            self.driver.execute_cdp_cmd('Input.dispatchMouseEvent', event)
        self.settle()

    def give(self, css: str, value: object, event: str) -> None:
        """Give all inputs that match a value, as a person would."""
        code = 'for (const i of document.querySelectorAll(arguments[0])) {'
        code += 'i.value = arguments[1]; i.dispatchEvent(new Event(arguments[2])); }'
        self.js(code, css, value, event)
        self.settle()

    def text(self, css: str) -> str:
        return str(self.driver.find_element('css selector', css).text)

    def screen(self) -> NDArray[np.uint8]:
        return np.asarray(Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert('RGB'))

    def shows(self, code: int, columns: slice) -> int:
        """Pixels of the map in the very colour of a class, in some columns of the screen."""
        return int((self.screen()[70:-110, columns] == LEGEND[code].colour).all(-1).sum())


@pytest.fixture(scope='module')
def page(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("chromium")}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield Page(driver, url)
    messages = driver.get_log('browser')
    driver.quit()
    assert not messages, messages  # also what the content security policy refused


DESKTOP, PHONE = (1280, 800), (390, 844)

#: Columns of the screen beside the panels, and their middle.
MIDDLE, LEFT, RIGHT = slice(310, 940), slice(310, 600), slice(680, 940)


def test_layers_load_and_switch(page: Page) -> None:
    page.open(DESKTOP)
    assert page.js("return performance.getEntriesByType('resource').every((r) => r.name.startsWith(location.origin))")
    boxes = page.js(
        "return [...document.querySelectorAll('.layer input[type=checkbox]')].filter((b) => b.checked).map((b) => b.id)"
    )
    assert boxes == ['on-map-0', 'on-image-2018-04']
    page.give('[data-layer=map-0] input[type=range]', 100, 'input')
    assert page.shows(6, MIDDLE) > 3000
    page.click('#legend [data-code="6"]')
    assert page.shows(6, MIDDLE) < 100 and 'hide=6' in page.js('return location.hash')
    page.click('#legend [data-code="6"]')
    page.click('#on-map-0')
    assert page.shows(6, MIDDLE) < 100
    april = page.screen()
    page.give('#combination', 1, 'change')
    infrared = page.screen()
    assert (infrared[:, MIDDLE] != april[:, MIDDLE]).any(-1).mean() > 0.05
    assert 'bands=B08,B04,B03' in page.js('return location.hash')


def test_the_divider_shows_labels_on_one_side_and_the_map_on_the_other(page: Page) -> None:
    page.open(DESKTOP)
    page.key('s')
    page.give('.layer.on input[type=range]', 100, 'input')
    assert page.js("return document.querySelector('#divider').getAttribute('aria-valuenow')") == '50'
    both = page.shows(6, LEFT)
    for _ in range(10):
        page.driver.find_element('css selector', 'body').send_keys('.')
    page.settle()
    assert page.js("return document.querySelector('#divider').getAttribute('aria-valuenow')") == '100'
    labels = page.shows(6, LEFT)
    for _ in range(20):
        page.driver.find_element('css selector', 'body').send_keys(',')
    page.settle()
    errs = page.shows(6, LEFT)  # the map errs in the west, the labels do not
    assert both == labels < errs - 1000
    address = page.js('return location.href')
    before = page.screen()
    page.open(DESKTOP, address)
    assert 'swipe=0.000' in address and (page.screen() != before).any(-1).mean() < 0.002


def test_a_click_tells_what_is_there(page: Page) -> None:
    page.open(DESKTOP)
    page.click_at(625, 400)
    page.until(lambda: 'Reflectance' in page.text('#point'))
    text = page.text('#point')
    assert re.search(r'EPSG:32631\s+\d{6}\.\d\d, \d{7}\.\d\d', text) and re.search(r'row \d+, column \d+', text)
    assert 'labels 2018' in text and 'probabilities' in text and '78 %' in text
    assert page.js("return document.querySelectorAll('.spectra polyline').length") == 2
    assert page.js("return document.querySelectorAll('.spectra circle').length") == 20
    page.key('\ue00c')  # Escape
    assert page.js("return document.querySelector('#panel-point').hidden")


def test_an_audit_is_stepped_through_by_keys(page: Page, files: list[Path]) -> None:
    page.open(DESKTOP)
    page.key('n')
    assert page.js("return document.querySelector('.rank').dataset.rank") == '1'
    assert page.js("return document.querySelectorAll('path.suspect').length") == 1
    assert 'confidence 92 % · 0.04 ha' in page.text('#audit')
    page.key('a')
    page.until(lambda: page.js("return document.querySelector('.rank').dataset.rank") == '2')
    page.key('r')
    page.until(lambda: page.js("return document.querySelector('.rank').dataset.rank") == '3')
    field = page.driver.find_element('css selector', '#audit input')
    field.send_keys('<b>pond</b>, r\n')
    page.until(lambda: 'Remark saved' in page.text('#toast'))
    page.js('document.activeElement.blur()')
    page.key('u')
    page.until(lambda: '3 of 3 judged' in page.text('#audit'))
    read = gpd.read_file(files[-1]).sort_values('rank')
    assert read['verdict'].tolist() == ['accept', 'reject', 'unsure']
    assert read['remark'].tolist()[2] == '<b>pond</b>, r'
    page.key('x')
    page.until(lambda: gpd.read_file(files[-1])['verdict'].isna().sum() == 1)
    page.key('?')
    assert 'accept: the label is wrong' in page.text('#help')
    page.key('?')


def test_a_phone_shows_one_panel_at_a_time(page: Page) -> None:
    page.open(PHONE)
    assert page.js('return document.documentElement.scrollWidth <= 390')
    shown = "return [...document.querySelectorAll('.panel')].filter((p) => p.offsetParent).map((p) => p.id)"
    assert page.js(shown) == []
    for tab in ('layers', 'legend', 'audit'):
        page.click(f'#tabs [data-tab={tab}]')
        assert page.js(shown) == [f'panel-{tab}']
    page.click('#tabs [data-tab=audit]')
    page.click_at(195, 420)
    page.until(lambda: page.js(shown) == ['panel-point'])
    inside = "return [...document.querySelectorAll('#panel-point, #tools, #tabs')].every((p) => { const b = p.getBoundingClientRect(); return b.left >= 0 && b.right <= 390 && b.bottom <= 844; })"  # noqa: E501
    assert page.js(inside)
