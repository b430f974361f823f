"""What is to be run where; the same for every way to get there."""

import dataclasses
import re
import shlex
from collections.abc import Sequence

from mm.errors import UserError
from mm.slices import Slice

RESTARTS = 1000
"""How often a job on spot machines may be started again: more than any run lasts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One run on one or several slices.

    Attributes:
      name: of the resources it makes. arguments: of `python -m mm.main`, --workdir among them.
      image: a container image with mm in it (see `Dockerfile`).
      secrets: environment variable -> the name of the secret that holds it; values never pass through here.
    """

    name: str
    arguments: tuple[str, ...]
    workdir: str
    image: str
    slice: Slice
    slices: int = 1
    spot: bool = False
    secrets: tuple[tuple[str, str], ...] = ()

    @property
    def command(self) -> list[str]:
        return ["python", "-m", "mm.main", *self.arguments]


def checked_name(name: str) -> str:
    """Raises UserError unless gcloud and Kubernetes both take it."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
        raise UserError(
            f"--name={name}: small letters, digits and -, at most 40, beginning with a letter; choose another"
        )
    return name


def checked_secrets(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """ "ENV=SECRET" items. Raises UserError for one of another form."""
    pairs = []
    for item in given:
        match = re.fullmatch(r"([A-Za-z_]\w*)=([A-Za-z0-9][-\w./]*)", item)
        if not match:
            raise UserError(
                "--secret: expected VARIABLE=NAME_OF_A_SECRET, as in --secret WANDB_API_KEY=wandb; "
                "the value itself belongs into the secret manager"
            )
        pairs.append((match[1], match[2]))
    return tuple(pairs)


SECRET_LIKE = re.compile(r"(key|token|password|secret|credential)[^=]*=.+", re.IGNORECASE)


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Raises UserError where an argument looks like a secret: it would be read in every list of processes."""
    for argument in arguments:
        if SECRET_LIKE.search(argument):
            raise UserError(
                f"{argument.partition('=')[0]}=...: a secret does not belong on a command line; "
                "keep it in the secret manager and name it with --secret"
            )


def shown(command: Sequence[str]) -> str:
    """A command as it is typed."""
    return shlex.join(command)
