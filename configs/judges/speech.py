"""The judge of spoken digits: says which digit a second of speech at 8 kHz says.

    python -m mm.main --config configs/judges/speech.py --workdir runs/judges/speech

Takes about 8 minutes of CPU time on two cores. Expected: at least 99% of the 300 validation
recordings right; `test` in results.json is for the report: nothing was chosen by it. Writes
runs/judges/speech/artefact/speech.safetensors; copied over configs/judges/speech.safetensors it is
what other configs name.

A judge learns from real training recordings alone, and is no loss, selector or feature of anything.
It sees power in coarse bands, without phases: a voice with estimated phases is not strange to it.
"""

from data_pipelines.digits import Digits
from mm.config import Data, Experiment, Optim
from mm.evals.judge_accuracy import JudgeAccuracy
from mm.models.classifier import ConvNet
from mm.tasks.fronts import LogMel
from mm.tasks.judge import Classify

STEPS = 4000


def get_config(arg: str = "") -> Experiment:
    """The recipe of the shipped weights; `smoke` as `arg` takes 20 steps to see that it runs."""
    steps = 20 if arg == "smoke" else STEPS
    card = {
        "data": "Free Spoken Digit Dataset, takes 10-49 of each of 6 speakers (validation: 5-9)",
        "licence": "CC BY-SA 4.0, as the data",
        "steps": steps,
    }
    return Experiment(
        name="speech-judge",
        task=Classify(
            column="speech",
            front=LogMel(),
            # Frequencies are not averaged: where in the spectrum it sounds tells vowels apart.
            network=ConvNet(widths=(16, 48, 96), depths=(0, 1, 1), pool_width=False),
            card=card,
        ),
        data=Data(source=Digits(modalities=("speech",), forms=8), batch_size=64),
        optim=Optim(lr=3e-3, warmup=min(100, steps // 2), ema=0.998),
        evals=(JudgeAccuracy(), JudgeAccuracy(name="test", when="end", split="test")),
        steps=steps,
        log_every=50,
        eval_every=1000,
        save_every=1000,
    )
