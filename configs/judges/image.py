"""The judge of images of digits: says which digit a 28 x 28 image shows.

    python -m mm.main --config configs/judges/image.py --workdir runs/judges/image

Takes about 8 minutes of CPU time on two cores (0.06 s a step while they are free). Expected: 99.5%
of the validation images right; `test` in results.json is for the report: nothing was chosen by it.
Writes runs/judges/image/artefact/image.safetensors; copied over configs/judges/image.safetensors it
is what other configs name.

A judge learns from real training images alone, and is no loss, selector or feature of anything.
"""

from data_pipelines.digits import Digits
from mm.config import Data, Experiment, Optim
from mm.evals.judge_accuracy import JudgeAccuracy
from mm.models.classifier import ConvNet
from mm.tasks.fronts import Pixels
from mm.tasks.judge import Classify

STEPS = 4000


def get_config(arg: str = "") -> Experiment:
    """The recipe of the shipped weights; `smoke` as `arg` takes 20 steps to see that it runs."""
    steps = 20 if arg == "smoke" else STEPS
    card = {
        "data": "MNIST, its first 55,000 training images (validation: the other 5,000)",
        "licence": "CC BY-SA 3.0, as the data",
        "steps": steps,
    }
    return Experiment(
        name="image-judge",
        task=Classify(
            column="image",
            front=Pixels(),
            network=ConvNet(widths=(32, 64, 96), depths=(0, 1, 1)),
            card=card,
        ),
        data=Data(source=Digits(modalities=("image",)), batch_size=128),
        optim=Optim(lr=2e-3, warmup=min(100, steps // 2), ema=0.998),
        evals=(JudgeAccuracy(), JudgeAccuracy(name="test", when="end", split="test")),
        steps=steps,
        log_every=50,
        eval_every=1000,
        save_every=1000,
    )
