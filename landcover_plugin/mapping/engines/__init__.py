"""Engines: what computes the network when it maps. One reference, faster ones beside it, all checked against it."""

from .base import ENGINES, Engine, EngineName, Shape
from .building import build_engine

__all__ = ['ENGINES', 'Engine', 'EngineName', 'Shape', 'build_engine']
