"""Jobs for Cloud TPU: what is printed, what the tools are told, and what is never told."""

import gzip
import json
import os
import stat
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from mm import slices
from mm.errors import UserError
from mm.launch import queued
from mm.launch.__main__ import main
from mm.launch.job import Job

# The schema of JobSet v1alpha2: of kubernetes-sigs/jobset (Apache-2.0) at 08dfbdfd, config/components/crd, its descriptions left
# out, unknown fields forbidden.
SCHEMA = Path(__file__).parent / "jobset.v1alpha2.schema.json.gz"
RUN = ["configs/quickstart.py", "--workdir=gs://bucket/run", "--image=eu-docker.pkg.dev/p/r/mm"]
TOOL = """#!/usr/bin/env python3
import json, os, sys
given = "" if sys.stdin.isatty() else sys.stdin.read()
with open({calls!r}, "a") as f:
    f.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
open({calls!r} + ".stdin", "w").write(given)
for argument in sys.argv:
    if argument.startswith("--metadata-from-file="):
        open({calls!r} + ".script", "w").write(open(argument.partition("startup-script=")[2]).read())
if "describe" in sys.argv:
    states = open({calls!r} + ".states").read().split()
    print(states[0])
    open({calls!r} + ".states", "w").write(" ".join(states[1:] or states))
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """gcloud, kubectl and xpk that write down what they were called with; the function reads it."""
    calls = tmp_path / "calls"
    for name in ("gcloud", "kubectl", "xpk"):
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(TOOL.format(calls=str(calls)))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def called(suffix=""):
        path = Path(str(calls) + suffix)
        text = path.read_text() if path.exists() else ""
        return text if suffix else [json.loads(line) for line in text.splitlines()]

    called.path = calls
    return called


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "topology", "accelerator"),
    [
        ("v5e-256", 256, 64, "v5e:16x16", "v5litepod-256"),
        ("v5litepod-8", 8, 1, "v5e:2x4", "v5litepod-8"),
        ("v5p-128", 64, 16, "v5p:4x4x4", "v5p-128"),
        ("v6e:4x4", 16, 4, "v6e:4x4", "v6e-16"),
        ("v4-8", 4, 1, "v4:2x2x1", "v4-8"),
    ],
)
def test_slices_by_any_of_their_names(name, chips, hosts, topology, accelerator):
    found = slices.find(name, "--tpu")
    assert (found.chips, found.hosts) == (chips, hosts)
    assert (found.topology, found.accelerator_type) == (topology, accelerator)


def test_names_mean_one_slice_each():
    for names in ("topology", "name", "accelerator_type"):
        assert len({getattr(s, names) for s in slices.SLICES}) == len(slices.SLICES)


def test_nothing_is_done_unless_asked(tools, capsys):
    for where in (["--zone=z"], ["--on=gke"], ["--on=xpk", "--zone=z", "--cluster=c"]):
        assert main([*RUN, "--tpu=v5e-16", *where]) == 0
        assert main([*RUN, "--tpu=v5e-16", *where, "--dry-run"]) == 0
    assert (
        tools() == [] and "gcloud compute tpus queued-resources create" in capsys.readouterr().out
    )


def test_a_spot_slice_is_asked_for_again_until_the_run_is_finished(
    tools, tmp_path, capsys, monkeypatch
):
    """WAITING, ACTIVE, taken away, ACTIVE; then the results are there."""
    run = tmp_path / "run"
    job = Job(
        name="mm-x", arguments=("--config", "configs/x.py"), workdir=str(run), image="i/mm",
        slice=slices.find("v5e-16", "--tpu"), spot=True,
    )  # fmt: skip
    Path(str(tools.path) + ".states").write_text("WAITING_FOR_RESOURCES ACTIVE SUSPENDED ACTIVE")
    seen = []

    def sleep(_):
        seen.append(len(tools()))
        if sum("describe" in c for c in tools()) == 4:
            run.mkdir()
            (run / "results.json").write_text("{}")

    monkeypatch.setattr(queued.time, "sleep", sleep)
    script = tmp_path / "start.sh"
    script.write_text(queued.start_script(job))
    queued.watch(job, "p", "z", script)
    assert [c[4] for c in tools()] == [
        "describe", "describe", "describe", "delete", "create", "describe", "delete",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "mm-x: SUSPENDED" in said and "finished; giving the slices back" in said


def test_what_gcloud_is_told(tools):
    command = [*RUN, "--tpu=v5p-128", "--zone=z", "--project=p", "--name=try-1", "--run"]
    command += ["--secret=WANDB_API_KEY=wandb", "--slices=2", "--config.optim.lr=3e-4"]
    assert main(command) == 0
    (call,) = tools()
    assert call[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "try-1"]
    assert {"--node-count=2", "--node-prefix=try-1", "--zone=z", "--project=p"} <= set(call)
    assert {"--accelerator-type=v5p-128", "--runtime-version=v2-alpha-tpuv5"} <= set(call)
    script = tools(".script")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert "gcloud secrets versions access latest --secret=wandb" in script
    assert "-e WANDB_API_KEY eu-docker.pkg.dev/p/r/mm python -m mm.main --config" in script
    assert "--workdir=gs://bucket/run --config.optim.lr=3e-4" in script


@pytest.mark.parametrize("more", [[], ["--spot", "--slices=3", "--secret=WANDB_API_KEY=wandb"]])
@pytest.mark.parametrize("tpu", ["v5e-256", "v5p-8", "v6e-8"])
def test_manifests_are_jobsets(tools, tpu, more):
    assert main([*RUN, f"--tpu={tpu}", "--on=gke", "--run", *more]) == 0
    assert tools() == [["kubectl", "apply", "-f", "-"]]
    manifest = yaml.safe_load(tools(".stdin"))
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    jsonschema.validate(manifest, schema)
    (group,) = manifest["spec"]["replicatedJobs"]
    spec = group["template"]["spec"]
    found = slices.find(tpu, "--tpu")
    pod = spec["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] == found.hosts
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["google.com/tpu"] * found.hosts == found.chips
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == found.shape
    assert ("tolerations" in pod) == bool(more) and group["replicas"] == (3 if more else 1)
    if more:
        assert manifest["spec"]["failurePolicy"]["maxRestarts"] >= 1000
        (variable,) = container["env"]
        assert variable["valueFrom"]["secretKeyRef"] == {"name": "wandb", "key": "WANDB_API_KEY"}


def test_the_schema_can_refuse(tools):
    assert main([*RUN, "--tpu=v5e-16", "--on=gke", "--run"]) == 0
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    for path, value in (
        (("spec", "failurePolicy"), {"maxRestart": 3}),
        (("spec", "replicatedJobs", 0, "replicas"), "two"),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers"), {}),
    ):
        broken = yaml.safe_load(tools(".stdin"))
        inner = broken
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_what_xpk_is_told(tools):
    where = ["--on=xpk", "--zone=z", "--cluster=c", "--spot", "--run"]
    assert main([*RUN, "--tpu=v6e-256", *where]) == 0
    (call,) = tools()
    assert call[:4] == ["xpk", "workload", "create", "--cluster=c"]
    assert {"--tpu-type=v6e-256", "--num-slices=1", "--max-restarts=1000"} <= set(call)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tpu=v5e-24"], "--tpu=v5e-24: no such slice; did you mean"),
        (["--tpu=v5e-8", "--workdir=runs/x"], "a slice's disks are gone with it"),
        (["--tpu=v5e-8"], "--zone: --on tpu-vm needs it"),
        (["--tpu=v5e-8", "--on=gke", "--name=My_Run"], "--name=My_Run: small letters"),
        (["--tpu=v5e-8", "--on=gke", "--secret=sk-123"], "--secret: expected VARIABLE=NAME"),
        (["--tpu=v5e-8", "--on=gke", "--config.api_key=sk-123"], "a secret does not belong"),
        (["--tpu=v5e-8", "--on=gke", "--lr=3"], "--lr=3: not a flag"),
        (["--tpu=v5e-8", "--on=gke", "--slices=0"], "--slices=0"),
        (["--tpu=v5e-8", "--on=gke", "--run", "--dry-run"], "one of them"),
        (["--tpu=v5e-8", "--on=xpk", "--zone=z", "--cluster=c", "--secret=A=b"], "use --on gke"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line(tools, capsys, arguments, said):
    assert main([*RUN, *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and "sk-123" not in err
    assert tools() == []


def test_a_tool_that_is_missing_or_fails(tools, tmp_path, capsys, monkeypatch):
    (tmp_path / "bin" / "kubectl").write_text("#!/bin/sh\necho no cluster >&2; exit 1\n")
    assert main([*RUN, "--tpu=v5e-8", "--on=gke", "--run"]) == 2
    assert "kubectl apply -f - ...: no cluster" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*RUN, "--tpu=v5e-8", "--on=gke", "--run"]) == 2
    assert "kubectl: not installed here" in capsys.readouterr().err


def test_an_unknown_config(tools, capsys):
    assert main(["configs/nothing.py", *RUN[1:], "--tpu=v5e-8", "--on=gke"]) == 2
    assert "configs/nothing.py: no such config" in capsys.readouterr().err


def test_errors_have_the_flag_in_them():
    with pytest.raises(UserError, match="--topology=v9:2x2: no such slice"):
        slices.find("v9:2x2", "--topology")
