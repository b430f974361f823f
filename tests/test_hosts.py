"""Several processes as several hosts, on this machine: they meet, train and save together, and are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mm import hosts
from mm.errors import UserError
from mm.hosts import Place

NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


@pytest.fixture
def said(monkeypatch):
    def say(*values):
        for name, value in zip(NAMES, values, strict=True):
            monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(
                name, raising=False
            )

    return say


def test_alone_unless_something_says_otherwise(said):
    said(None, None, None)
    assert hosts.place() is None
    said("a:1", "1", "0")
    assert hosts.place() is None
    said("a:1", "3", "2")
    assert hosts.place() == Place("a:1", 3, 2)


@pytest.mark.parametrize(
    "values", [("a:1", "two", "0"), ("a:1", "2", "2"), ("a:1", "2", None), ("a", "2", "0"), (None, "2", "0")]
)  # fmt: skip
def test_half_a_word_is_refused(said, values):
    said(*values)
    with pytest.raises(UserError, match="expected HOST:PORT, the number of processes"):
        hosts.place()


def together(count, marks, timeout=20.0, come=None):
    """What each host that comes is told."""
    port, told = free_port(), {}

    def host(index):
        try:
            hosts.meet(Place(f"localhost:{port}", count, index), marks[index], timeout)
            told[index] = "go"
        except UserError as e:
            told[index] = str(e)

    threads = [threading.Thread(target=host, args=(i,)) for i in come or range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_hosts_that_agree_go():
    assert together(3, [{"config": "a", "code": "b"}] * 3) == dict.fromkeys(range(3), "go")


def test_hosts_that_disagree_are_named():
    same, other = {"config": "a", "code": "b"}, {"config": "a", "code": "c"}
    told = together(3, [same, same, other])
    line = "host 2 has another code than host 0 (c, b); give all hosts the same"
    assert told == dict.fromkeys(range(3), line)


def test_a_host_that_never_comes_is_named():
    told = together(4, [{}] * 4, timeout=1.0, come=(0, 2))
    assert set(told) == {0, 2}
    for line in told.values():
        assert line.startswith("hosts 1, 3 of 4 did not come in 1 s")
    told = together(2, [{}] * 2, timeout=1.0, come=(1,))
    assert "host 0 (localhost:" in told[1] and "did not answer in 1 s" in told[1]


def test_strangers_at_the_door_change_nothing():
    port = free_port()
    place = [Place(f"localhost:{port}", 2, i) for i in (0, 1)]
    first = threading.Thread(target=hosts.meet, args=(place[0], {}, 20.0))
    first.start()
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b""):
        with hosts._reached("localhost", port + 1, time.monotonic() + 5) as stranger:
            stranger.sendall(said)
    hosts.meet(place[1], {}, 20.0)
    first.join()


COMMAND = [
    sys.executable, "-m", "mm.main", "--config", "tests/toy_config.py", "--config.steps=400",
    "--config.task.outputs=16", "--config.eval_every=0", "--config.keep=3",
]  # fmt: skip


def start(folder, *, devices, host=None, extra=(), cwd="."):
    """One process of a run, with so many simulated devices. `host`: (port, number of hosts, index)."""
    env = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    if host:
        port, count, index = host
        env |= dict(zip(NAMES, (f"localhost:{port}", str(count), str(index)), strict=True))
    return subprocess.Popen(
        [*COMMAND, f"--workdir={folder}", *extra], env=env, cwd=cwd,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def metrics(folder: Path) -> dict[int, dict[str, float]]:
    text = (folder / "metrics.jsonl").read_text()
    return {v["step"]: v for line in text.splitlines() if "order" in (v := json.loads(line))}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process with one device, never disturbed."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    code, _, err = ended(start(folder, devices=1))
    assert code == 0, err
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("saving", "devices"), [(False, 8), (True, 2)])
def test_two_hosts_train_one_is_killed_and_another_machine_goes_on(
    alone, tmp_path, saving, devices
):
    folder, port = tmp_path / "run", free_port()
    both = [start(folder, devices=4, host=(port, 2, i)) for i in (0, 1)]
    until = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or max(metrics(folder), default=0) < 100:
        assert time.monotonic() < until and both[0].poll() is None, ended(both[0])
        time.sleep(0.02)
    while saving and not any((folder / "checkpoints").glob("*tmp*")):
        assert time.monotonic() < until and both[0].poll() is None, ended(both[0])
    both[1].send_signal(signal.SIGKILL)
    code, out, err = ended(both[0])
    assert code != 0
    told = "mm: host 0: another host was lost" in err
    assert told or "JAX distributed service" in err, err
    assert "'fsdp': 8" in out and "saving" not in ended(both[1])[1], "only host 0 writes"
    code, out, err = ended(start(folder, devices=devices))
    assert code == 0, err
    assert "ended without farewell" in out and "continues after step" in out
    found, reference = metrics(folder), metrics(alone)
    assert list(found) == list(range(1, 401))
    for step, values in found.items():
        assert values["order"] == reference[step]["order"], "the data comes in the same order"
        assert values["loss"] == pytest.approx(reference[step]["loss"], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_two_hosts_end_like_one_and_stop_together(alone, tmp_path):
    folder = tmp_path / "run"
    port = free_port()
    both = [start(folder, devices=2, host=(port, 2, i)) for i in (0, 1)]
    until = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or max(metrics(folder), default=0) < 50:
        assert time.monotonic() < until and both[0].poll() is None, ended(both[0])
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)  # a scheduler takes one machine
    (code, out, err), (other, _, _) = ended(both[0]), ended(both[1])
    assert (code, other) == (0, 0), err
    assert "another host was stopped: saved step" in out
    port = free_port()
    both = [start(folder, devices=2, host=(port, 2, i)) for i in (0, 1)]
    for process in both:
        code, _, err = ended(process)
        assert code == 0, err
    found, reference = metrics(folder), metrics(alone)
    assert list(found) == list(reference)
    assert all(found[i]["order"] == reference[i]["order"] for i in found)
    results = [json.loads((f / "results.json").read_text()) for f in (folder, alone)]
    assert results[0]["error"]["distance"] == pytest.approx(
        results[1]["error"]["distance"], abs=1e-4
    )
    assert (folder / "report" / "index.html").exists() and not (folder / "running").exists()


@pytest.mark.slow
def test_a_refusal_reaches_every_host(alone, tmp_path):
    """Host 1 has another config; and a folder that is another run's, which only host 0 looks at."""
    port = free_port()
    pair = [
        start(tmp_path / "run", devices=1, host=(port, 2, 0)),
        start(tmp_path / "run", devices=1, host=(port, 2, 1), extra=["--config.seed=7"]),
    ]
    for code, _, err in map(ended, pair):
        assert code == 2 and "host 1 has another config than host 0" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    port = free_port()
    extra = ["--config.optim.lr=0.2"]
    pair = [start(alone, devices=1, host=(port, 2, i), extra=extra) for i in (0, 1)]
    for code, _, err in map(ended, pair):
        assert code == 2 and "holds the run of another experiment" in err
