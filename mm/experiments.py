"""Experiments with the usual rest, for recipes and configs that have little to decide.

What should differ is assigned to what these return (`exp.steps = 5000`); `--config FILE --help` lists all of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mm.config import Data, Experiment, Optim
from mm.evals import kinds as k
from mm.evals.any_to_any import AnyToAny
from mm.evals.kinds import Kind
from mm.evals.retrieval import Retrieval
from mm.evals.tokenizers import Tokenizers
from mm.evals.validation import ValidationLoss
from mm.models.encoder_decoder import Model
from mm.objectives.masking import Masking
from mm.tasks.joint import Contrast, Joint


def tokenizer(name: str, task: Any, source: Any, *, arg: str = "", steps: int = 2000) -> Experiment:
    """Trains a tokenizer of the source's column `task.column`, and keeps how validation rows come back.

    Args:
      task: `Autoencode`; or `TrainVocabulary`, with `steps=0`. Its card says the steps too.
      arg: the config's; with "smoke" in it, the run is small.
    """
    smoke = "smoke" in arg
    steps = min(steps, 20) if smoke else steps
    return Experiment(
        name=f"{name}-smoke" if smoke else name,
        task=dataclasses.replace(task, card=task.card | {"steps": steps}),
        data=Data(source=dataclasses.replace(source, modalities=(task.column,)), batch_size=64),
        optim=Optim(lr=2e-3, warmup=min(100, steps // 10), weight_decay=0.01),
        evals=(Tokenizers(kinds=(Kind(name=task.column),), split="validation"),),
        steps=steps,
        log_every=50,
    )


def joint(
    name: str,
    source: Any,
    tokenizers: Mapping[str, str],
    *,
    arg: str = "",
    kinds: tuple[Kind, ...] = (),
    steps: int = 2500,
) -> Experiment:
    """Trains the joint model, as the quickstart's is: small, in one step of masked generation and contrast.

    Evaluated are the validation loss, retrieval and the tokenizers; generation too, where all kinds have a judge.

    Args:
      tokenizers: modality -> "path#fingerprint", see `Data`. The masks see and ask for 24 tokens: more of
        them (`exp.task.masking`) where examples are longer than some 40.
      arg: the config's; with "smoke" in it, the run is small.
      kinds: what evaluation compares; one of each modality unless given.
    """
    smoke, kinds = "smoke" in arg, kinds or tuple(Kind(name=m) for m in tokenizers)
    width, layers, count, steps = (64, 1, 60, min(steps, 20)) if smoke else (128, 3, 1000, steps)
    generation = (AnyToAny(kinds=kinds, count=count),) if all(map(k.readers, kinds)) else ()
    return Experiment(
        name=f"{name}-smoke" if smoke else name,
        task=Joint(
            model=Model(
                width=width,
                heads=width // 32,
                encoder_layers=layers,
                decoder_layers=layers,
                positions="learned",
                codebook_init=0.8,
                mlp="gelu_tanh",
                scan=False,
            ),
            masking=Masking(visible=24, targets=24),
            contrast=Contrast(weight=0.3, share=0.75),
        ),
        data=Data(source=source, tokenizers=dict(tokenizers), batch_size=64),
        optim=Optim(kind="muon", lr=3e-3, warmup=min(100, steps // 10)),
        evals=(
            ValidationLoss(batches=1 if smoke else 8),
            *generation,
            Retrieval(kinds=kinds, queries=count, gallery=2 * count),
            Tokenizers(kinds=kinds, count=count),
        ),
        steps=steps,
        log_every=50,
        eval_every=500,
        save_every=500,
    )
