"""What lies where in a whole simulated scene: towns, roads, rivers, mines, clouds, drawn once from the seed.

Metres run east (x) and south (y) from the scene's upper left corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landcover_plugin.datasets.simulated_ground import Rules
from landcover_plugin.datasets.simulated_noise import BORDER, COAST, ELEVATION, MOISTURE, ROCK, fields
from landcover_plugin.datasets.simulated_spectra import KIND

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Geometry of a scene; every table has one row per object (see ``simulated_ground``)."""

    size: tuple[float, float]
    rules: Rules
    relief: float
    regions: Table
    towns: Table
    discs: Table
    rectangles: Table
    rivers: Table
    roads: Table
    houses: Table
    clouds: tuple[Table, ...]


def plan(height: float, width: float, seed: int, seasons: int) -> Layout:
    """Lay out a scene of ``height`` x ``width`` metres; the same arguments give the same layout.

    Examples:
        >>> layout = plan(5120, 5120, seed=0, seasons=2)
        >>> len(layout.towns) > 0, len(layout.clouds)
        (True, 2)
    """
    rng = np.random.default_rng([seed, round(height), round(width)])
    salt = int(rng.integers(1, 2**31))
    site = _Site(rng, height, width, salt)
    towns = site.towns()
    mines = site.mines(towns)
    return Layout(
        size=(height, width),
        rules=site.rules,
        relief=55.0 * min(max(min(height, width) / 2.2, 400.0), 4500.0) / 1000,
        regions=site.regions(),
        towns=towns,
        discs=np.concatenate([mines, site.lakes(np.concatenate([towns[:, :3], mines[:, :3]]))]),
        rectangles=site.estates(towns),
        rivers=site.rivers(),
        roads=site.roads(towns),
        houses=site.houses(),
        clouds=tuple(site.clouds() for _ in range(seasons)),
    )


class _Site:
    """The empty land, asked for one kind of object after another."""

    def __init__(self, rng: np.random.Generator, height: float, width: float, salt: int) -> None:
        self.rng, self.height, self.width, self.salt = rng, height, width, salt
        self.short = min(height, width)
        self.rules = self._rules()

    def _fields(self, xs: Table, ys: Table) -> NDArray[np.float32]:
        return fields(xs, ys, (self.height, self.width), self.salt)

    def _at(self, x: float, y: float) -> NDArray[np.float32]:
        return self._fields(np.array([x]), np.array([y]))[:, 0, 0]

    def _rules(self) -> Rules:
        """Levels that give every scene the same shares of farmland, forest and scrub."""
        planes = self._fields(np.linspace(0, self.width, 56), np.linspace(0, self.height, 56))
        land = (planes[COAST] > 0) & (planes[BORDER] > 0)
        farmland = float(np.quantile(planes[ELEVATION][land], 0.5))
        wild = land & (planes[ELEVATION] > farmland)
        forest, scrub = np.quantile(planes[MOISTURE][wild], [0.36, 0.14])
        rock = float(np.quantile(planes[ROCK][wild], 0.86))
        region = min(max(self.short / 6, 260.0), 720.0)
        return Rules(farmland, float(forest), float(scrub), rock, region, self.salt)

    def regions(self) -> Table:
        """Regions of farmland that share the bearing and the size of their parcels."""
        size = self.rules.region
        rows, cols = int(np.ceil(self.height / size)) + 4, int(np.ceil(self.width / size)) + 4
        j, i = np.meshgrid(np.arange(cols) - 2.0, np.arange(rows) - 2.0)
        draw = self.rng.random((8, rows, cols))
        angle = np.pi * draw[2]
        depth = 55 + (0.12 * size + 20) * draw[3] ** 1.5
        woody = np.choose((draw[4] * 3).astype(int), [0.08, 0.4, 0.8])
        x, y = (j + 0.1 + 0.8 * draw[0]) * size, (i + 0.1 + 0.8 * draw[1]) * size
        return np.stack([x, y, np.cos(angle), np.sin(angle), depth, woody, draw[6], draw[7]], axis=-1)

    def towns(self) -> Table:
        """Towns, one in most cells of a lattice, on land and well inside the border."""
        cell = min(max(self.short / 2, 1200.0), 2700.0)
        rows, cols = max(1, round(self.height / cell)), max(1, round(0.85 * self.width / cell))
        found: list[tuple[float, ...]] = []
        for i in range(rows):
            for j in range(cols):
                x = (j + self.rng.uniform(0.25, 0.75)) * 0.85 * self.width / cols
                y = (i + self.rng.uniform(0.25, 0.75)) * self.height / rows
                radius, angle = cell * self.rng.uniform(0.1, 0.17), self.rng.uniform(0, np.pi)
                here = self._at(x, y)
                keep = self.rng.random() < 0.8 and here[COAST] > 0.6 * radius and here[BORDER] > 0.8 * radius
                if keep or (not found and (i, j) == (rows - 1, cols - 1)):
                    found.append((x, y, radius, np.cos(angle), np.sin(angle), 1000 + len(found)))
        return np.array(found)

    def _away(self, taken: Table, radius: float, west: float, east: float) -> tuple[float, float]:
        """The highest of a few places on land, inside the border, clear of what is taken; ``west`` to ``east``."""
        places = self.rng.uniform((west, 0.05 * self.height), (east, 0.95 * self.height), size=(60, 2))
        best, score = places[0], -np.inf
        for x, y in places:
            here = self._at(x, y)
            gap = (np.hypot(taken[:, 0] - x, taken[:, 1] - y) / (1.6 * (taken[:, 2] + radius))).min()
            fit = here[ELEVATION] if min(gap - 1, here[COAST] - 2 * radius, here[BORDER] - radius) > 0 else gap - 9
            if fit > score:
                best, score = np.array([x, y]), fit
        return float(best[0]), float(best[1])

    def _discs(self, taken: Table, kinds: Sequence[str], count: int, radius: float) -> Table:
        """Discs spread from west to east, so that every split of the scene can hold one."""
        edges = np.linspace(0.05, 0.82, count + 1) * self.width
        rows = np.empty((0, 5))
        for number in range(count):
            wide = radius * self.rng.uniform(0.8, 1.2)
            place = self._away(taken, wide, edges[number], edges[number + 1])
            rows = np.vstack([rows, (*place, wide, KIND[kinds[number % len(kinds)]], number)])
            taken = np.vstack([taken, rows[-1, :3]])
        return rows

    def mines(self, towns: Table) -> Table:
        """Quarries and landfills, one for every 8 km² or so."""
        count = 1 + round(self.width * self.height / 10e6)
        return self._discs(towns[:, :3], ('quarry', 'landfill', 'quarry'), count, min(max(0.03 * self.short, 40), 160))

    def lakes(self, taken: Table) -> Table:
        """Lakes, and farm ponds of 8 to 25 m."""
        area = self.width * self.height / 1e6
        lakes = self._discs(taken, ('lake',), 1 + int(area / 15), min(max(0.03 * self.short, 25), 170))
        ponds = np.zeros((int(3 * area), 5))
        ponds[:, :2] = self.rng.random((len(ponds), 2)) * (self.width, self.height)
        ponds[:, 2] = self.rng.uniform(8, 25, len(ponds))
        ponds[:, 3] = KIND['lake']
        return np.concatenate([lakes, ponds])

    def estates(self, towns: Table) -> Table:
        """An industrial estate and a large park at the edge of every town."""
        rows = []
        for x, y, radius, cosine, sine, name in towns:
            for kind, far, wide, high in (('sheds', 1.1, 0.42, 0.3), ('lawns', 0.95, 0.28, 0.17)):
                angle = self.rng.uniform(0.5, 1.5) * np.pi
                place = (x + far * radius * np.cos(angle), y + far * radius * np.sin(angle))
                rows.append((*place, wide * radius, high * radius, cosine, sine, KIND[kind], name + 5000))
        return np.array(rows)

    def rivers(self) -> Table:
        """Rivers that run east to the sea between strips of riparian forest, wider downstream."""
        banks, beds = [], []
        count = max(1, round(self.height / 7000))
        x = np.arange(-100.0, self.width + 100, 30)
        for number in range(count):
            phase = self.rng.uniform(0, 2 * np.pi, 4)
            y = self.height / count * (number + self.rng.uniform(0.35, 0.65))
            line = np.full_like(x, y)
            for k, (high, long) in enumerate([(0.05 * self.short, self.short / 1.3), (90, 1500), (45, 620), (18, 260)]):
                line += min(high, 0.05 * self.short) * np.sin(2 * np.pi * x / long + phase[k])
            half = 5 + 13 * np.clip(x / self.width, 0, 1) * min(1.0, self.short / 5000)
            ends = np.stack([x[:-1], line[:-1], x[1:], line[1:]], axis=1)
            tail = np.full((len(ends), 1), float(number))
            bank = (half[1:] * 2 + 8)[:, None]
            banks.append(np.hstack([ends, bank, np.full_like(tail, KIND['riparian']), tail]))
            beds.append(np.hstack([ends, half[1:, None], np.full_like(tail, KIND['river']), tail]))
        return np.concatenate(banks + beds)

    def _road(self, start: Table, end: Table, half: float, bend: float = 0.05) -> Table:
        """A winding road as short straight pieces."""
        length = float(np.hypot(*(end - start)))
        t = np.linspace(0, 1, max(3, int(length / 45)))
        sway = sum(bend * length / k * self.rng.normal() * np.sin(k * np.pi * t) for k in (1, 2, 3, 5, 8))
        across = np.array([start[1] - end[1], end[0] - start[0]]) / length
        line = start + t[:, None] * (end - start) + np.asarray(sway)[:, None] * across
        tail = np.broadcast_to([half, KIND['road'], self.rng.integers(1 << 20)], (len(t) - 1, 3))
        return np.hstack([line[:-1], line[1:], tail])

    def roads(self, towns: Table) -> Table:
        """Roads from each town to its nearest ones and out of the scene, and a motorway along the coast."""
        places = towns[:, :2]
        top = np.array([0.72 * self.width, -60.0])
        roads = [self._road(top, np.array([0.7 * self.width, self.height + 60]), 6.0, 0.02)]
        for near, far in sorted(_links(places)):
            roads.append(self._road(places[near], places[far], self.rng.uniform(2.5, 5)))
        for x, y in places:
            side = np.array([-60.0, y]) if x < self.width / 2 else np.array([top[0], y + 300])
            roads.append(self._road(np.array([x, y]), side, self.rng.uniform(2.5, 4)))
        return np.concatenate(roads)

    def houses(self) -> Table:
        """Isolated houses of 10 to 34 m: single farms, and hamlets where the land has drawn one."""
        area = self.width * self.height / 1e6
        single = self.rng.random((int(14 * area), 2)) * (self.width, self.height)
        centres = self.rng.random((1 + int(1.2 * area), 2)) * (self.width, self.height)
        hamlets = np.repeat(centres, 9, axis=0) + self.rng.normal(scale=55, size=(9 * len(centres), 2))
        places = np.concatenate([single, hamlets])
        half = self.rng.uniform(5, 17, (len(places), 2))
        angle = self.rng.uniform(0, np.pi, len(places))
        kind = np.full(len(places), KIND['house'])
        name = self.rng.integers(1 << 20, size=len(places))
        return np.column_stack([places, half, np.cos(angle), np.sin(angle), kind, name]).astype(float)

    def clouds(self) -> Table:
        """Small clouds of one season: about 1 % of the scene."""
        count = 1 + self.rng.poisson(self.width * self.height / 16e6)
        place = self.rng.random((count, 2)) * (self.width, self.height)
        radius = self.rng.uniform(0.6, 1.4, count) * min(0.04 * self.short, 230)
        return np.column_stack([place, radius, self.rng.uniform(0.6, 0.97, count)])


def _links(places: Table) -> set[tuple[int, int]]:
    """Pairs of towns that a road joins: a tree, so that none is cut off, and each one's two nearest."""
    gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    links = {(int(gaps[k, :k].argmin()), k) for k in range(1, len(places))}
    for k, row in enumerate(gaps):
        links |= {(min(k, int(m)), max(k, int(m))) for m in np.argsort(row)[1:3]}
    return links
