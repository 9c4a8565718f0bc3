"""Engines: what computes the network when it maps. One reference, faster ones beside it, all checked against it."""

from .base import ENGINES, Engine, EngineName, Pending, Shape
from .building import build_engine
from .choosing import MIN_AGREEMENT, choose_engine
from .trials import Choice, Trial
from .tuning import cpu_batch, tune_batch, tune_patch_size

__all__ = [
    'ENGINES',
    'MIN_AGREEMENT',
    'Choice',
    'Engine',
    'EngineName',
    'Pending',
    'Shape',
    'Trial',
    'build_engine',
    'choose_engine',
    'cpu_batch',
    'tune_batch',
    'tune_patch_size',
]
