"""Searches for better settings of a training: what is tried, what came of it, and what mattered."""
