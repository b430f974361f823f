"""Runs a config on Cloud TPU: prints what it would do, or (--run) does it.

    python -m mm.launch configs/quickstart.py --tpu v5e-256 --workdir gs://BUCKET/RUN --image IMAGE --zone ZONE
    python -m mm.launch ... --on gke                     a JobSet for kubectl instead of TPU VMs; --on xpk: xpk's command
    python -m mm.launch ... --spot --run                 on spot machines, started again until the run is finished
    python -m mm.launch ... --config.optim.lr=3e-4       overrides go to the run

docs/tpu.md leads from an empty project to a running job.
"""

import sys
import tempfile
from pathlib import Path

from mm import slices
from mm.errors import Parser, UserError, exit_code
from mm.launch import gke, queued
from mm.launch.job import Job, checked_name, checked_secrets, refuse_secrets, shown
from mm.paths import is_local


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    return exit_code(lambda: run(argv), "mm.launch")


def run(argv: list[str]) -> int:
    """Raises UserError: anything that cannot be meant, before any tool is called."""
    parser = Parser(prog="python -m mm.launch", usage=__doc__)
    parser.add_argument("config")
    parser.add_argument("--tpu", required=True)
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--on", choices=["tpu-vm", "gke", "xpk"], default="tpu-vm")
    parser.add_argument("--name", default="")
    parser.add_argument("--zone", default="")
    parser.add_argument("--project", default="")
    parser.add_argument("--cluster", default="")
    parser.add_argument("--spot", action="store_true")
    parser.add_argument("--secret", action="append", default=[])
    parser.add_argument("--dry-run", action="store_true", help="print only: what happens anyway")
    parser.add_argument("--run", action="store_true", help="do it")
    options, rest = parser.parse_known_args(argv)
    for argument in rest:
        if not argument.startswith(("--config.", "--wandb=")):
            raise UserError(f"{argument}: not a flag; see python -m mm.launch --help")
    if options.dry_run and options.run:
        raise UserError("--dry-run and --run: one of them")
    job = job_of(options, rest)
    needed = {"tpu-vm": ["zone"], "gke": [], "xpk": ["zone", "cluster"]}[options.on]
    for flag in needed:
        if not getattr(options, flag):
            raise UserError(f"--{flag}: --on {options.on} needs it")
    {"tpu-vm": on_vms, "gke": on_gke, "xpk": on_xpk}[options.on](job, options)
    return 0


def job_of(options, rest: list[str]) -> Job:
    """The job that the flags describe. Raises UserError: see its parts."""
    if is_local(options.workdir):
        raise UserError(
            f"--workdir={options.workdir}: a slice's disks are gone with it; name a folder of a bucket, gs://BUCKET/RUN"
        )
    if not Path(options.config.partition(":")[0]).is_file():
        raise UserError(f"{options.config}: no such config; run from the checkout")
    if options.slices < 1:
        raise UserError(f"--slices={options.slices}: at least 1")
    refuse_secrets(rest)
    stem = Path(options.config.partition(":")[0]).stem.replace("_", "-")
    return Job(
        name=checked_name(options.name or f"mm-{stem}"),
        arguments=("--config", options.config, f"--workdir={options.workdir}", *rest),
        workdir=options.workdir,
        image=options.image,
        slice=slices.find(options.tpu, "--tpu"),
        slices=options.slices,
        spot=options.spot,
        secrets=checked_secrets(options.secret),
    )


def on_vms(job: Job, options) -> None:
    """By queued resources."""
    where = options.project, options.zone
    if not options.run:
        print(
            f"# start.sh, run by each of {job.slices * job.slice.hosts} hosts\n{queued.start_script(job)}"
        )
        print(shown(queued.create(job, *where, "start.sh")))
        if job.spot:
            print("# and whenever this says SUSPENDED or FAILED")
            print(shown(queued.describe(job, *where)))
            print(shown(queued.delete(job, *where)))
            print(shown(queued.create(job, *where, "start.sh")))
        print("# when the run is finished")
        print(shown(queued.delete(job, *where)))
        return
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "start.sh"
        script.write_text(queued.start_script(job))
        queued.call(queued.create(job, *where, script))
        print(
            f"{job.name}: asked for {job.slices} x {job.slice.name} in {options.zone}", flush=True
        )
        if job.spot:
            queued.watch(job, *where, script)


def on_gke(job: Job, options) -> None:
    """By a JobSet."""
    apply = ["kubectl", "apply", "-f", "-"]
    if not options.run:
        print(f"{gke.text(job)}# {shown(apply)}")
        return
    print(queued.call(apply, gke.text(job)), end="")


def on_xpk(job: Job, options) -> None:
    """By xpk."""
    command = gke.xpk(job, options.cluster, options.project, options.zone)
    print(queued.call(command) if options.run else shown(command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
