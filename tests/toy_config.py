"""The toy experiment, as a config file."""

from mm.config import Data, Experiment, Optim
from tests.toy import Error, Regress, Toy


def get_config(arg: str = "") -> Experiment:
    return Experiment(
        name="toy",
        task=Regress(),
        data=Data(source=Toy(), batch_size=16),
        optim=Optim(lr=0.3, warmup=2, weight_decay=0.0),
        evals=(Error(),),
        steps=60,
        log_every=1,
        eval_every=20,
        save_every=20,
    )
