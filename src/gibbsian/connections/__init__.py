"""Connections make fields: linear maps between neighbouring layers, one kind a file."""

from gibbsian.connections.base import Connection, Scaled
from gibbsian.connections.dense import Dense

__all__ = ["Connection", "Dense", "Scaled"]
