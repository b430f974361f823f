"""Pen paths and images of handwritten characters in one model. With `:smoke`, the same in small.

    python -m mm.main --config configs/pen.py       (runs/pen)

Expected, on drawings of people who are not in training (one seed): retrieval mAP 0.55 from images to paths and 0.54
back, by chance 0.018; the first found is the same character in 0.72 and 0.71 of cases, by chance 0.007. Of test rows
the tokenizers lose 0.034 (paths) and 0.32 (images). What is generated is rough: of four samples that were looked
at, two could be read.

    python -m mm.main --mode=generate --workdir runs/pen --input pen=path.npy --output image --out made

8.3 minutes (5.0 of processor time) on two x86-64 cores that others used heavily, 2026-11-21.
"""

from data_pipelines.omniglot import Omniglot
from mm import experiments
from mm.config import Experiment

TOKENIZERS = {
    "image": "tokenizers/pen_image.safetensors#96912320",
    "pen": "tokenizers/pen.safetensors#755b1df9",
}


def get_config(arg: str = "") -> Experiment:
    """The experiment; `smoke` makes it small."""
    return experiments.joint("pen", Omniglot(), TOKENIZERS, arg=arg, steps=800)
