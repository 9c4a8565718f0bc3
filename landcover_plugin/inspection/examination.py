"""An examination: what was asked, what was found, and how a check that fails becomes a finding."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import LandcoverError
from ..rasters.landcover import SourceLegend
from ..rasters.mosaics import Seasons
from .classes import ClassRow
from .findings import Finding, told_by


@dataclass(frozen=True)
class Settings:
    """What is examined, and how training would read it; names and defaults are those of the data module."""

    root: str
    patch_size: int = 256
    bands: Sequence[str] | None = None
    band_order: Sequence[str] | None = None
    seasons: Seasons = 'separate'
    reflectance_scale: float = 10_000
    reflectance_offset: float = 0
    nodata: float | None = None
    source_legend: SourceLegend = 'auto'
    unknown_labels: Literal['error', 'ignore'] = 'error'

    def check(self) -> None:
        """Refuse what no data could make right.

        Raises:
            LandcoverError: If a number is out of range.
        """
        if self.patch_size < 32:
            raise LandcoverError(f'patch-size must be at least 32 px, got {self.patch_size}; the default is 256')
        if not 0 < self.reflectance_scale < float('inf'):
            raise LandcoverError(f'reflectance-scale must be a number > 0, got {self.reflectance_scale}')
        if not float('-inf') < self.reflectance_offset <= 0:
            raise LandcoverError(f'reflectance-offset must be 0 or negative, got {self.reflectance_offset}')


@dataclass
class Examination:
    """What came out.

    Args:
        settings: What was asked for.
        findings: In the order of the checks.
        table: Class table; empty if no label could be read.
        share: Share of the ground from which table and shares come; 0 if none was read.
        seconds: How long it took.
    """

    settings: Settings
    findings: list[Finding] = field(default_factory=list)
    table: list[ClassRow] = field(default_factory=list)
    share: float = 0
    seconds: float = 0

    def run(self, name: str, check: Callable[..., Iterable[Finding]], *arguments: Any) -> None:
        """Keep what a check finds; its failure is a finding too."""
        try:
            for finding in check(*arguments):
                self.findings.append(finding)
        except LandcoverError as e:
            self.findings.append(told_by(name, e))
        except Exception as e:  # a doctor does not die of the patient
            self.findings.append(_failed(name, e))

    def attempt(self, name: str, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What ``make`` returns, or None and a finding."""
        try:
            return make(*arguments, **options)
        except LandcoverError as e:
            self.findings.append(told_by(name, e))
        except Exception as e:
            self.findings.append(_failed(name, e))
        return None


def _failed(name: str, error: Exception) -> Finding:
    return Finding(
        name,
        'warning',
        f'this check itself failed ({type(error).__name__}: {" ".join(str(error).split())[:200]})',
        'report it together with what landcover doctor --env prints',
        {'exception': type(error).__name__},
    )
