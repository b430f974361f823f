"""TPU VMs by queued resources: created with a start script that runs the container on every host.

A spot slice that is taken away becomes SUSPENDED and cannot be started again: it is deleted and asked for anew, and the
same command continues from the last checkpoint.
"""

import shlex
import subprocess
import time
from pathlib import Path

from etils import epath

from mm.errors import UserError
from mm.launch.job import Job

GONE = ("SUSPENDED", "FAILED")
PAUSE = 60.0  # seconds between two looks


def start_script(job: Job) -> str:
    """What every host runs when it starts: secrets from the secret manager, then the container."""
    lines = ["#!/bin/bash", "set -euo pipefail"]
    for variable, secret in job.secrets:
        name = shlex.quote(secret)
        lines.append(
            f"{variable}=$(gcloud secrets versions access latest --secret={name}); export {variable}"
        )
    run = ["docker", "run", "--rm", "--privileged", "--net=host", "--name=mm"]
    for variable, _ in job.secrets:
        run += ["-e", variable]  # the value is taken from the environment
    lines.append(f"gcloud auth configure-docker {shlex.quote(job.image.partition('/')[0])} --quiet")
    lines.append(shlex.join([*run, job.image, *job.command]))
    return "\n".join(lines) + "\n"


def place(project: str, zone: str) -> list[str]:
    return [f"--zone={zone}", *([f"--project={project}"] if project else [])]


def create(job: Job, project: str, zone: str, script: Path | str) -> list[str]:
    """The command that asks for the slices."""
    nodes = [f"--node-id={job.name}"]
    if job.slices > 1:
        nodes = [f"--node-count={job.slices}", f"--node-prefix={job.name}"]
    return [
        "gcloud", "compute", "tpus", "queued-resources", "create", job.name, *nodes, *place(project, zone),
        f"--accelerator-type={job.slice.accelerator_type}", f"--runtime-version={job.slice.chip.runtime}",
        *(["--spot"] if job.spot else []), f"--metadata-from-file=startup-script={script}",
    ]  # fmt: skip


def describe(job: Job, project: str, zone: str) -> list[str]:
    base = ["gcloud", "compute", "tpus", "queued-resources", "describe", job.name]
    return [*base, *place(project, zone), "--format=value(state.state)"]


def delete(job: Job, project: str, zone: str) -> list[str]:
    base = ["gcloud", "compute", "tpus", "queued-resources", "delete", job.name]
    return [*base, *place(project, zone), "--force", "--quiet"]


def watch(job: Job, project: str, zone: str, script: Path, pause: float = PAUSE) -> None:
    """Until the run has its results: asks for the slices again whenever they were taken away; then gives them back."""
    state = ""
    while not (epath.Path(job.workdir) / "results.json").exists():
        before, state = state, call(describe(job, project, zone)).strip()
        if state != before:
            print(f"{job.name}: {state}", flush=True)
        if state in GONE:
            call(delete(job, project, zone))
            call(create(job, project, zone, script))
        time.sleep(pause)
    print(f"{job.name}: finished; giving the slices back", flush=True)
    call(delete(job, project, zone))


def call(command: list[str], given: str | None = None) -> str:
    """Runs a tool; its standard output. Raises UserError: it is not installed, or fails."""
    try:
        return subprocess.run(
            command, input=given, check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError as e:
        raise UserError(f"{command[0]}: not installed here; see docs/tpu.md") from e
    except subprocess.CalledProcessError as e:
        reason = " ".join(e.stderr.split())[-300:]
        raise UserError(
            f"{shlex.join(command[:5])} ...: {reason or f'exit code {e.returncode}'}"
        ) from e
