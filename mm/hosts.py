"""Several hosts as one run: how they find each other, agree, and part.

Each host runs the same command. Who they are is found by JAX (TPU pods, Slurm, Open MPI, Kubernetes) or said by
JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID. With a single process nothing here does anything.

Before JAX's own service, which aborts the process when a host is missing, the hosts meet at PORT + 1: the first
waits for all, compares what each is about to run, and lets all go or tells all why not.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import mm
from mm import config
from mm.errors import UserError

T = TypeVar("T")
ARRIVE = 300.0  # seconds that hosts wait for each other
WAIT = 24 * 3600  # seconds that hosts wait while the first one builds and tokenizes data
HEARTBEAT = 30  # seconds without a sign of life after which a host counts as lost
_joined: "Place | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """This process among the hosts. `address`: of the first one, HOST:PORT."""

    address: str
    count: int
    index: int


def place() -> Place | None:
    """Where this process stands; None where it is alone.

    Raises:
      UserError: variables that say half of it, or no numbers.
    """
    said = {k: os.environ.get(k) for k in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")}  # fmt: skip
    if said["JAX_NUM_PROCESSES"] is not None:
        try:
            count, index = int(said["JAX_NUM_PROCESSES"]), int(said["JAX_PROCESS_ID"] or "")
            address = said["JAX_COORDINATOR_ADDRESS"] or ""
            if not (0 <= index < count and address.rpartition(":")[2].isdigit()):
                raise ValueError
        except ValueError as e:
            raise UserError(
                f"{', '.join(f'{k}={v}' for k, v in said.items())}: expected HOST:PORT, the number of processes, "
                "and this one's, 0 .. number - 1"
            ) from e
        return Place(address, count, index) if count > 1 else None
    from jax._src.clusters import ClusterEnv

    # jax.distributed.initialize asks the same, but joins at once.
    found = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(ARRIVE)
    )
    address, count, index, _ = found
    if address is None or count is None or index is None or count == 1:
        return None
    return Place(address, count, index)


def start(exp: config.Experiment | None, timeout: float = ARRIVE) -> None:
    """Joins the other hosts, if there are any; other hosts than the first write nothing to standard output.

    Raises:
      UserError: a host did not come, or is about to run something else.
    """
    global _joined
    here = place()
    if here is None:
        return
    meet(here, marks(exp), timeout)
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        here.address, here.count, here.index,
        initialization_timeout=int(timeout), heartbeat_timeout_seconds=HEARTBEAT,
        shutdown_timeout_seconds=HEARTBEAT,
    )  # fmt: skip
    _joined = here
    if here.index:  # libraries print too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def marks(exp: config.Experiment | None) -> dict[str, str]:
    """What must be the same on all hosts: the experiment, the code, the versions."""
    code = hashlib.sha256()
    for path in sorted(Path(mm.__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    loaded = {Path(str(getattr(m, "__file__", None))) for m in list(sys.modules.values())}
    recipes = (p for p in loaded if p.suffix == ".py" and p.is_relative_to(Path.cwd()))
    for path in sorted(p for p in recipes if "site-packages" not in p.parts):
        code.update(path.read_bytes())
    return {
        "config": config.fingerprint(exp) if exp else "",
        "code": code.hexdigest()[:16],
        "jax": metadata.version("jaxlib"),
    }


def meet(here: Place, marks: Mapping[str, str], timeout: float) -> None:
    """All hosts wait for each other, and compare their marks.

    Raises:
      UserError: on every host that came: which one did not, or which one differs in what.
    """
    name, _, port = here.address.rpartition(":")
    until = time.monotonic() + timeout
    if here.index == 0:
        _receive(int(port) + 1, here, marks, until, timeout)
        return
    try:
        with _reached(name, int(port) + 1, until) as peer:
            _send(peer, {"index": here.index, "marks": marks})
            peer.settimeout(
                max(0.1, until - time.monotonic()) + 10
            )  # the first one's clock decides
            answer = _read(peer)
    except (OSError, ValueError) as e:
        raise UserError(
            f"host {here.index}: host 0 ({here.address}) did not answer in {timeout:.0f} s; start it, or mend JAX_COORDINATOR_ADDRESS"
        ) from e
    if answer.get("wrong"):
        raise UserError(answer["wrong"])


def _receive(
    port: int, here: Place, marks: Mapping[str, str], until: float, timeout: float
) -> None:
    peers: dict[int, socket.socket] = {}
    wrong = ""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port), backlog=here.count))
        while len(peers) < here.count - 1 and (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                peer = stack.enter_context(server.accept()[0])
                peer.settimeout(5)
                said = _read(peer)
                peers[said["index"]] = peer
                wrong = wrong or _different(said["index"], said["marks"], marks)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # nobody of ours, or the time is over
        missing = sorted(set(range(1, here.count)) - peers.keys())
        if missing:
            who = f"host{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
            wrong = f"{who} of {here.count} did not come in {timeout:.0f} s; look at their logs, and start all again"
        for peer in peers.values():
            with contextlib.suppress(OSError):  # gone meanwhile: JAX will miss it
                _send(peer, {"wrong": wrong})
    if wrong:
        raise UserError(wrong)


def _different(index: int, there: Mapping[str, str], here: Mapping[str, str]) -> str:
    for name, value in here.items():
        if there.get(name) != value:
            return f"host {index} has another {name} than host 0 ({there.get(name)}, {value}); give all hosts the same"
    return ""


def _reached(name: str, port: int, until: float) -> socket.socket:
    while True:
        try:
            return socket.create_connection((name, port), timeout=5)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _send(peer: socket.socket, value: Mapping[str, Any]) -> None:
    peer.sendall(json.dumps(value).encode() + b"\n")


def _read(peer: socket.socket) -> dict[str, Any]:
    with peer.makefile("rb") as lines:
        return json.loads(lines.readline(10_000))


def several() -> bool:
    """Whether there are other hosts."""
    return _joined is not None


def first() -> bool:
    """Whether this is the host that writes: logs, metrics, results, reports."""
    return _joined is None or _joined.index == 0


def first_alone(work: Callable[[], T]) -> T | None:
    """The first host does it, the others wait; an error of its is raised on all."""
    return _in_turn(work, others=False)


def first_before(work: Callable[[], T]) -> T:
    """The first host does it, then all others do: they find in a shared cache what it made."""
    done = _in_turn(work, others=True)
    return done  # pyright: ignore[reportReturnType]


def _in_turn(work: Callable[[], T], *, others: bool) -> T | None:
    if not several():
        return work()
    import numpy as np
    import orbax.checkpoint as ocp
    from jax.experimental import multihost_utils

    done, wrong = None, ""
    if first():
        try:
            done = work()
        except UserError as e:
            wrong = str(e)
    # The barrier waits as long as it takes; the broadcast, over the network of the accelerators, does not.
    ocp.multihost.sync_global_processes("mm.hosts", timeout=WAIT)
    told = np.frombuffer(wrong.encode()[:2048].ljust(2048, b"\0"), np.uint8)
    said = np.asarray(multihost_utils.broadcast_one_to_all(told)).tobytes().rstrip(b"\0")
    if said:
        raise UserError(said.decode(errors="replace"))
    return work() if others and not first() else done


@contextlib.contextmanager
def parting(folder: os.PathLike[str], saved: Callable[[], int | None]) -> Iterator[None]:
    """While it lasts, another host's end is told in one line, and ends this process at once.

    JAX would wait at its exit for those that are no more, and then abort.

    Args:
      saved: the step of the newest checkpoint.
    """
    try:
        yield
    except Exception as e:
        if isinstance(e, UserError) or not several():
            raise
        reason = " ".join(str(e).split())[:160]
        print(
            f"mm: host {_joined and _joined.index}: another host was lost ({type(e).__name__}: {reason}); step {saved()} in {os.fspath(folder)} "
            "stands, the same command on all hosts continues",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        leave(1)


def leave(code: int) -> None:
    """Ends this process without a farewell to the other hosts."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
