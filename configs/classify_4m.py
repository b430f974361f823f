"""A model of 4M's is finetuned to classify: pixels in, one token of a new modality out.

    python -m mm.weights import EPFL-VILAB/4M-7_B_CC12M --out runs/4m-7-b                 (or a .safetensors)
    python -m mm.main --config configs/classify_4m.py:runs/4m-7-b --workdir runs/4m-digits
    python -m mm.main --config configs/classify_4m.py:runs/4m-7-b:head --workdir runs/4m-digits-head

Handwritten digits stand for pictures of yours: another source of pixels and labels (`data_pipelines/drawn_digits_4m.py`) is all that
changes. The encoder sees every patch and the decoder is asked for the label alone, so this is masked generation with one
target, and what the model could do before it can be asked for still. With `head` no layer is trained: the label's rows of the tables
are, and what tells its place and the pixels' from others.
"""

from configs.finetune_4m import imported
from data_pipelines.drawn_digits_4m import DrawnDigits4M
from mm.config import Data, Experiment, Optim
from mm.errors import UserError
from mm.evals.validation import ValidationLoss
from mm.objectives.masking_4m import Component, Masking4M, pixels
from mm.tasks.joint import Contrast, Joint

WAYS = {"": "", "head": r"^(?!(token|target|head|modality)(/|$))"}
"""What is trained -> what is not: `config.optim.frozen`. The tables' other rows get no gradient."""


def get_config(arg: str = "runs/4m") -> Experiment:
    """RUN, or RUN:head.

    Raises:
      UserError: no imported model is there, or one that reads no pixels.
    """
    run, _, way = arg.partition(":")
    if way not in WAYS:
        raise UserError(f"configs/classify_4m.py:{arg}: {way!r}: use RUN or RUN:head")
    kept, model = imported(run)
    source = DrawnDigits4M(**kept)
    picture = pixels(source.space)
    masking = Masking4M(
        visible=source.space[picture].size,
        targets=1,
        components=(Component(input_alphas={picture: 1.0}, target_alphas={"label": 1.0}),),
    )
    return Experiment(
        name=f"classify-4m{way and '-' + way}",
        task=Joint(model=model, masking=masking, contrast=Contrast(weight=0.0)),
        data=Data(source=source, batch_size=16),
        optim=Optim(lr=1e-4, warmup=50, weight_decay=0.0, frozen=WAYS[way]),
        evals=(ValidationLoss(),),
        init=run,
        grow=True,
        steps=300,
        save_every=100,
    )
