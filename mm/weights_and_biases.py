"""A writer that sends figures to Weights & Biases: `--wandb=PROJECT`. Imported only when it is asked for.

Who is asked for a key, whether anything is sent, and where to, are wandb's own settings: WANDB_API_KEY,
WANDB_MODE=offline, WANDB_BASE_URL.
"""

import math
import secrets
from collections.abc import Mapping
from importlib import metadata

from etils.epath import Path

from mm import config
from mm.errors import UserError


def check() -> None:
    """Raises UserError where the package is missing."""
    try:
        # Not find_spec: a folder `wandb` that a run left here counts as a package there.
        metadata.version("wandb")
    except metadata.PackageNotFoundError as e:
        raise UserError(
            "--wandb: the package wandb is not installed; start with `uv run --extra wandb python -m mm.main`, "
            "or pip install wandb"
        ) from e


class WandB:
    """The logged values as a run of `project`; its files, and its id, lie in `folder`/wandb.

    A run that continues has the same id. Steps that were sent before it was killed stay as they were sent.

    Raises:
      UserError: wandb cannot start (no key, no network).
    """

    def __init__(self, project: str, folder: Path, exp: config.Experiment):
        check()
        import wandb  # pyright: ignore[reportMissingImports]

        name = folder / "wandb" / "id"
        if not name.exists():
            name.parent.mkdir(exist_ok=True)
            name.write_text(secrets.token_hex(4))
        try:
            self.run = wandb.init(
                project=project, name=folder.name, id=name.read_text(), resume="allow", dir=folder,
                config=config.to_json(exp), settings=wandb.Settings(console="off", silent=True),
            )  # fmt: skip
        except wandb.errors.Error as e:
            reason = " ".join(str(e).split())
            raise UserError(f"--wandb={project}: {reason}; or set WANDB_MODE=offline") from e
        print(f"wandb: {self.run.url or self.run.dir}", flush=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({k: v for k, v in values.items() if math.isfinite(v)}, step=step)

    def close(self) -> None:
        self.run.finish()
