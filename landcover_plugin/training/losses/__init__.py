"""Losses that stay finite where nothing is labelled, and their sums.

A loss is named in one word or one line: ``ce``, ``focal``, ``ce+dice``, ``ce+0.5*lovasz``.
"""

from .criterion import LOSSES, RANGES, LandCoverLoss, build_loss, parse_loss

__all__ = ['LOSSES', 'RANGES', 'LandCoverLoss', 'build_loss', 'parse_loss']
