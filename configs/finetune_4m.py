"""A model of 4M's goes on: it learns speech, a modality that it never had, and contrast, which it never did.

    python -m mm.weights import EPFL-VILAB/4M-7_B_CC12M --out runs/4m-7-b                 (or a .safetensors)
    python -m mm.main --config configs/finetune_4m.py:runs/4m-7-b --workdir runs/4m-speech
    python -m mm.main --config configs/finetune_4m.py:runs/4m-7-b:lora --workdir runs/4m-speech-lora

The space grows by speech: its codes, its modality embedding and what contrast needs begin fresh, all that the model was is as it
was, to the bit. Then everything is trained; or, `frozen`, the tables of tokens and modalities and what contrast needs; or, `lora`,
these and factors of low rank beside the kernels. Of `--config.data.source.text` (4M's text tokenizer) the captions are words.
"""

from typing import Any

from etils.epath import Path

from data_pipelines.spoken_digits_4m import SpokenDigits4M
from mm import workdir
from mm.config import Data, Experiment, Optim
from mm.data.tokens_4m import Tokens4M
from mm.errors import UserError
from mm.evals.validation import ValidationLoss
from mm.models.encoder_decoder import Model
from mm.objectives.masking_4m import all_to_all
from mm.tasks.joint import Contrast, Joint

OPEN = "token|target|head|modality|unimodal|unimodal_norm|logit_scale"
WAYS = {
    "": "",
    "lora": rf"^(?!({OPEN}|adapters)(/|$))",
    "frozen": rf"^(?!({OPEN})(/|$))",
}
"""What is trained -> what is not: `config.optim.frozen`."""


def get_config(arg: str = "runs/4m") -> Experiment:
    """RUN, or RUN:lora, or RUN:frozen.

    Raises:
      UserError: no imported model is there.
    """
    run, _, way = arg.partition(":")
    if way not in WAYS:
        raise UserError(f"configs/finetune_4m.py:{arg}: {way!r}: use RUN, RUN:lora or RUN:frozen")
    kept, model = imported(run)
    source = SpokenDigits4M(**kept)
    model.embed_dim = 64
    return Experiment(
        name=f"finetune-4m{way and '-' + way}",
        task=Joint(
            model=model,
            masking=all_to_all(source.space, visible=32, targets=32),
            contrast=Contrast(weight=0.1, modalities=2, of=("speech", source.caption), fused=0.0),
            adapters=8 if way == "lora" else 0,
        ),
        data=Data(source=source, batch_size=32),
        optim=Optim(lr=3e-4, warmup=50, frozen=WAYS[way]),
        evals=(ValidationLoss(),),
        init=run,
        grow=True,
        steps=500,
        save_every=250,
    )


def imported(run: str) -> tuple[dict[str, Any], Model]:
    """An imported model: its token space, as the fields of a source that adds to it, and its network.

    Raises:
      UserError: no imported model is there.
    """
    exp = workdir.experiment(Path(run))
    source = exp.data.source
    if not isinstance(source, Tokens4M):
        raise UserError(
            f"{run}: no model of 4M; make one with python -m mm.weights import FILE --out {run}"
        )
    kept = ("inputs", "targets", "image_size", "patch_size", "t5_dim", "shared_text", "overrides")
    return {name: getattr(source, name) for name in kept}, exp.task.model
