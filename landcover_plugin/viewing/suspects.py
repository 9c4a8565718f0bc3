"""The suspects of a label audit: polygons to step through, and verdicts written into their GeoPackage at once."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from ..errors import LandcoverError
from ..evaluation.suspect_file import COLUMNS, LAYER
from ..evaluation.suspect_style import VERDICTS
from .handles import check_there

#: Longest remark in characters.
MAX_REMARK = 2000

#: Seconds to wait for another program that is writing.
_PATIENCE = 2.0

#: SQL functions that the GeoPackage's spatial triggers name. They run only when a geometry or a row number changes.
_SPATIAL = ('ST_IsEmpty', 'ST_MinX', 'ST_MaxX', 'ST_MinY', 'ST_MaxY')


def layer_names(path: str) -> list[str]:
    """Layers of a vector file.

    Raises:
        LandcoverError: If it cannot be read.
    """
    try:
        return [str(name) for name, _ in pyogrio.list_layers(path)]
    except (DataSourceError, DataLayerError) as e:
        raise _damaged(path, e) from e


def is_audit(path: str) -> bool:
    """Whether a file holds the suspects of an audit.

    Raises:
        LandcoverError: If it cannot be read.
    """
    return LAYER in layer_names(path)


class Suspects:
    """The layer ``suspects`` of a GeoPackage.

    Args:
        path: A local GeoPackage.

    Raises:
        LandcoverError: If it cannot be read, is empty, or lacks what stepping and judging need.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        if not self.path.is_file():
            raise LandcoverError(
                f'{path} is not on a local disk: verdicts are written into the file, so fetch it first'
            )
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, ...], gpd.GeoDataFrame] | None = None
        frame = self.frame()
        if missing := {'rank', 'verdict'} - set(frame.columns):
            raise LandcoverError(
                f'{self.path} has no column {", ".join(sorted(missing))} in its layer {LAYER!r}: write it anew with '
                'landcover audit'
            )
        if frame.empty:
            raise LandcoverError(f'{self.path} holds no suspect: there is nothing to step through')

    def frame(self) -> gpd.GeoDataFrame:
        """The suspects by row number, geometries in WGS84, in the order of their rank; read anew when the file changes.

        Raises:
            LandcoverError: If the file cannot be read.
        """
        with self._lock:
            version = tuple(_version(p) for p in (self.path, self.path.with_name(f'{self.path.name}-wal')))
            if self._read is None or self._read[0] != version:
                self._read = version, self._fetch()
            return self._read[1]

    def _fetch(self) -> gpd.GeoDataFrame:
        check_there(str(self.path))
        try:
            frame = pyogrio.read_dataframe(self.path, layer=LAYER, fid_as_index=True)
        except (DataSourceError, DataLayerError, ValueError) as e:
            raise _damaged(self.path, e) from e
        if frame.crs is None:
            raise LandcoverError(f'{self.path} has no CRS in its layer {LAYER!r}: write it anew with landcover audit')
        order = ['rank'] if 'rank' in frame else []
        return frame.to_crs(4326).sort_values(order, kind='stable') if order else frame.to_crs(4326)

    def rows(self) -> list[dict[str, Any]]:
        """What is told of each suspect, and its bounds in degrees, in the order of their rank."""
        frame = self.frame()
        shown = pd.DataFrame(frame[[c for c in COLUMNS if c in frame]])
        shown.insert(0, 'fid', frame.index)
        rows: list[dict[str, Any]] = json.loads(shown.to_json(orient='records'))
        for row, bounds in zip(rows, frame.bounds.round(7).to_numpy().tolist(), strict=True):
            row['bounds'] = bounds
        return rows

    def outline(self, fid: int) -> dict[str, Any]:
        """The geometry of a suspect in degrees, as GeoJSON.

        Raises:
            KeyError: If there is none of this number.
        """
        geometry = self.frame().geometry.loc[fid]
        outline: dict[str, Any] = json.loads(shapely.to_geojson(geometry))
        return outline

    def judge(self, fid: int, verdict: str | None, remark: str | None = None) -> None:
        """Write a verdict into the file, in one transaction.

        Args:
            fid: Row number.
            verdict: One of :data:`VERDICTS`, or None to take it back.
            remark: Replaces the older one; None leaves it.

        Raises:
            KeyError: If there is no suspect of this number.
            LandcoverError: If the verdict is not known, or the file is locked, write-protected or damaged.
        """
        values = self._checked(verdict, remark)
        with self._lock, self._transaction() as database:
            key = _row_number(database)
            assigned = ', '.join(f'"{column}" = ?' for column in values)
            done = database.execute(f'UPDATE "{LAYER}" SET {assigned} WHERE "{key}" = ?', (*values.values(), fid))
            if done.rowcount != 1:
                raise KeyError(fid)
            database.execute(
                "UPDATE gpkg_contents SET last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE table_name = ?",
                (LAYER,),
            )
            self._read = None  # two changes may share one time of change

    def _checked(self, verdict: str | None, remark: str | None) -> Mapping[str, str | None]:
        """Values by column."""
        if verdict is not None and verdict not in VERDICTS:
            raise LandcoverError(f'a verdict is one of {", ".join(VERDICTS)}, got {verdict!r}')
        if remark is None:
            return {'verdict': verdict}
        if len(remark) > MAX_REMARK:
            raise LandcoverError(f'a remark has at most {MAX_REMARK} characters, got {len(remark)}: shorten it')
        if 'remark' not in self.frame():
            raise LandcoverError(f'{self.path.name} has no column remark: write it anew with landcover audit')
        return {'verdict': verdict, 'remark': remark or None}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The database, locked for writing; rolled back if anything fails."""
        try:
            uri = f'{self.path.as_uri()}?mode=rw'
            with closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)) as database:
                for name in _SPATIAL:
                    database.create_function(name, 1, _never)
                database.execute('BEGIN IMMEDIATE')
                try:
                    yield database
                except BaseException:
                    database.execute('ROLLBACK')
                    raise
                database.execute('COMMIT')
        except sqlite3.Error as e:
            raise self._cannot_judge(e) from e

    def _cannot_judge(self, error: sqlite3.Error) -> LandcoverError:
        text = str(error)
        if 'locked' in text or 'busy' in text:
            why = 'is being written by another program (QGIS?): save or end editing there, and judge again'
        elif 'readonly' in text or 'unable to open' in text:
            why = 'is write-protected or gone: allow writing to it and to its folder, and judge again'
        else:
            why = f'could not take the verdict ({text}): the file may be damaged, restore it from a copy'
        return LandcoverError(f'{self.path.name} {why}')


def _row_number(database: sqlite3.Connection) -> str:
    """The column that holds the row number."""
    columns = database.execute(f'PRAGMA table_info("{LAYER}")')
    return next(name for _, name, _, _, _, is_key in columns if is_key)


def _never(_: object) -> None:
    raise ValueError('geometries are not changed here')


def _version(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _damaged(path: str | os.PathLike[str], error: Exception) -> LandcoverError:
    reason = str(error).strip().splitlines()[0]
    return LandcoverError(f'{path} cannot be read as a GeoPackage ({reason}): the file may be damaged, fetch it again')
