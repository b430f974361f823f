"""Scenes: a world in which every modality is exact. A few objects on a ground, under a sky, before a moving camera.

    python -m data_pipelines.scenes sheet --out docs/scenes.png
    python -m data_pipelines.scenes table
    python -m data_pipelines.scenes speed

Record i is a pure function of (seed, i). docs/scenes.md says what each modality is, in which unit, and which facts
it determines.
"""

from data_pipelines.scenes.record import MODALITIES, Record, record
from data_pipelines.scenes.source import Scenes

__all__ = ["MODALITIES", "Record", "Scenes", "record"]
