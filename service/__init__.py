"""Latchkey: users, the API keys they hold, and the calls that partners make with those keys."""

from importlib.metadata import version

__version__ = version("latchkey")
