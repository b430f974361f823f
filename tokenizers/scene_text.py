"""One vocabulary for all that is said of scenes: captions, and trees, boxes, metadata and palettes as sentences.

    python -m mm.main --config tokenizers/scene_text.py --workdir runs/tokenizers/scene_text

Takes no steps; writes runs/tokenizers/scene_text/artefact/scene_text.safetensors; copied over
tokenizers/scene_text.safetensors it is what a config names for each of the five:

    tokenizers={name: "tokenizers/scene_text.safetensors" for name in ("caption", "tree", "boxes")}

Numbers of the metadata are rounded to the steps below, those of boxes (pixels of pictures of 64 a side), trees and palettes
are not. Half a minute, of which most renders the rows; `:smoke` reads few of them.

Expected (the artefact's card, of 200 validation scenes): 4585 ids (461 learned, 4104 marks, sentinels and coordinates, 20
words of the forms); captions, trees, boxes and palettes come back exactly, metadata rounded, and then as they are; 35, 65,
29, 18 and 59 tokens a row.
"""

import itertools

from data_pipelines.scenes import Scenes
from data_pipelines.scenes.world import ATTRIBUTES, COLOURS, GROUNDS, SHAPES, SKIES
from mm.config import Data, Experiment, Optim
from mm.evals.kinds import Kind
from mm.evals.tokenizers import Tokenizers
from mm.tasks.shared_vocabulary import TrainSharedVocabulary
from mm.tokenizers.structured.form import Number
from mm.tokenizers.structured.objects import Boxes
from mm.tokenizers.structured.records import Field, Metadata, Palette, Tree

SIDE = 64
PIXEL = Number(low=0, high=SIDE, step=1)
SHARE = Number(low=0, high=0.995, step=0.005, cut=True)
GREY = Number(low=0, high=255, step=0.5, cut=True)
LABELS = tuple(" ".join(name) for name in itertools.product(*ATTRIBUTES.values()))


def _numbers(number: Number, names: str) -> tuple[Field, ...]:
    return tuple(Field(name=name, number=number) for name in names.split())


FIELDS = (
    *_numbers(Number(low=1, high=6, step=1), "objects"),
    *_numbers(Number(low=0, high=6, step=1), "cubes spheres cylinders large_objects metal_objects"),
    *_numbers(Number(low=1, high=6, step=1), "colours"),
    *_numbers(Number(low=0, high=6, step=1), "moving_objects"),
    Field(name="ground", names=tuple(GROUNDS)),
    Field(name="sky", names=tuple(SKIES)),
    *_numbers(SHARE, "sky_share ground_share object_share shadow_share edge_share hidden_share"),
    *_numbers(Number(low=0, high=20, step=0.05, cut=True), "nearest_depth mean_depth"),
    *_numbers(GREY, "brightness contrast saturation colourfulness"),
    *_numbers(Number(low=0, high=9.99, step=0.01), "camera_height camera_distance"),
    *_numbers(Number(low=0, high=90, step=0.1), "camera_elevation"),
    *_numbers(Number(low=-4.5, high=4.5, step=0.01), "camera_turn"),
    *_numbers(Number(low=0, high=360, step=0.5), "light_azimuth"),
    *_numbers(Number(low=0, high=90, step=0.1), "light_elevation"),
    *_numbers(Number(low=0, high=200, step=1), "caption_words"),
)
FORMS = {
    "tree": Tree(
        labels=("scene", "sky", "ground", *SHAPES, "at", "depth"),
        attributes=(*SKIES, *GROUNDS, *ATTRIBUTES["size"], *COLOURS, *ATTRIBUTES["material"]),
        number=Number(low=-20, high=200, step=1),
        depth=4,
        text=True,
    ),
    "boxes": Boxes(labels=LABELS, x=PIXEL, y=PIXEL, most=6),
    "metadata": Metadata(fields=FIELDS),
    "palette": Palette(),
}
LENGTHS = {"caption": 96, "tree": 102, "boxes": 49, "metadata": 59, "palette": 22}


def get_config(arg: str = "") -> Experiment:
    """The recipe of the shipped vocabulary."""
    smoke = "smoke" in arg
    rows = (20, 10, 1, 1) if smoke else (1000, 200, 1, 1)
    card = {
        "data": f"captions of {rows[0]} training scenes of seed 0 (data_pipelines/scenes), and the forms' own words",
        "licence": "Apache-2.0: made by the code of this repository",
    }
    return Experiment(
        name="scene-text-smoke" if smoke else "scene-text",
        task=TrainSharedVocabulary(
            name="scene_text", lengths=LENGTHS, forms=FORMS, size=700, card=card
        ),
        data=Data(source=Scenes(modalities=tuple(LENGTHS), rows=rows, side=SIDE)),
        optim=Optim(warmup=0),
        evals=(
            Tokenizers(
                kinds=tuple(Kind(name=n) for n in LENGTHS), split="validation", count=rows[1]
            ),
        ),
        steps=0,
    )
