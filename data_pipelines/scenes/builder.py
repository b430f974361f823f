"""Scenes as TFDS builds them: all modalities of a record side by side, as array_record, read without TensorFlow.

from mm.data.built import prepare
builder = prepare(functools.partial(ScenesBuilder, source=Scenes(rows=(1000, 100, 100, 100))), folder)
builder.as_data_source("train")[0]["depth"]
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.scenes.drawing import FIRST
from data_pipelines.scenes.record import MODALITIES, shape_of
from data_pipelines.scenes.source import Scenes, rows_of


# Not registered by name: TFDS is to read a prepared folder as its files say, whatever side was built.
class ScenesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The records of a source's splits, in their order; `index` is the record's number.

    What a record lacks by the source's `absent` is there all the same: absence is the source's to draw.
    """

    name = "scenes"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, source: Scenes | None = None, **kwargs: Any):
        self.source = source or Scenes()
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {"index": np.int64}
        for name in self.source.modalities:
            shape = shape_of(name, self.source.side)
            # As bytes: the default is a list of numbers, each a Python object when it is written.
            features[name] = (
                tfds.features.Text()
                if shape is None
                else tfds.features.Tensor(
                    shape=shape, dtype=np.dtype(MODALITIES[name].dtype), encoding="bytes"
                )
            )
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # record i is row i
            license="Apache-2.0",
        )

    @property
    def examples(self) -> int:
        """How many there are, all splits together."""
        return sum(self.source.rows)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in FIRST}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        count = dict(zip(FIRST, self.source.rows, strict=True))[split]
        for i in range(count):
            number = FIRST[split] + i
            yield i, {"index": number, **rows_of(self.source, [number])[0]}
