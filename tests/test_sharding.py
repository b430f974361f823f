"""Where arrays live. Goldens (tests/goldens/sharding/) are written by `python -m tests.test_sharding`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from mm import config, recipes, sharding, tokenizers
from mm import state as states
from mm.errors import UserError
from mm.optim import make_optimizer
from mm.tasks.joint import Joint
from mm.tasks.judge import ClassifierTask, Classify

GOLDENS = Path(__file__).parent / "goldens" / "sharding"
CONFIGS = (
    "configs/quickstart.py", "configs/digits.py", "configs/pen.py", "configs/judges/image.py",
    "configs/judges/speech.py", "tokenizers/image.py", "tokenizers/speech.py", "tokenizers/pen.py",
)  # fmt: skip


def mesh(replica=1, fsdp=4, tensor=2):
    return AbstractMesh((replica, fsdp, tensor), sharding.AXES)


def shapes_of(file: str):
    """The state of a config's experiment, of which nothing is allocated."""
    exp = recipes.read(file)[""]
    if isinstance(exp.task, Joint):
        loaded = tokenizers.load_all(exp.data.tokenizers)
        task = exp.task.build_for(tokenizers.space_of(loaded))
    else:
        judge = isinstance(exp.task, Classify)
        task = ClassifierTask(exp.task, None) if judge else exp.task.build(None)
    tx = make_optimizer(exp.optim, exp.steps)
    return jax.eval_shape(lambda: states.fresh(task, tx, 0, exp.optim.ema > 0))


def golden(file: str) -> str:
    shapes = shapes_of(file)
    head = f"{file}, replica 1, fsdp 4, tensor 2: path, type, the axis that splits each dimension\n"
    params = {k: shapes[k] for k in ("params", "buffers")}
    return head + "\n".join(sharding.table(params, mesh())) + "\n"


def path_of(file: str) -> Path:
    return GOLDENS / (file.removesuffix(".py").replace("/", "-") + ".txt")


@pytest.mark.parametrize("file", CONFIGS)
def test_every_array_of_the_shipped_configs_lies_where_it_lay(file):
    assert golden(file) == path_of(file).read_text()


@pytest.mark.parametrize("file", CONFIGS)
def test_nothing_of_them_is_undivided_and_moments_lie_like_their_parameters(file):
    shapes = shapes_of(file)
    assert not sharding.check_divided({"params": shapes["params"]}, mesh())
    specs = {
        sharding.path_name(p): sharding.spec(sharding.path_name(p), x.shape, mesh())
        for p, x in jax.tree_util.tree_leaves_with_path(shapes)
    }
    moments = 0
    for path, found in specs.items():
        of = path.rpartition("/mu/")[2] if "/mu/" in path else path.rpartition("/nu/")[2]
        if of and of != path:
            moments += 1
            assert found == specs[f"params/{of}"], path
    assert moments >= len(jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("params/decoder/mlp/up/kernel", (3, 64, 256), (None, "fsdp", "tensor")),
        ("params/decoder/mlp/down/kernel", (3, 256, 64), (None, "tensor", "fsdp")),
        ("params/encoder/attn/out/kernel", (3, 64, 64), (None, "tensor", "fsdp")),
        ("params/encoder/attn/qkv/kernel", (3, 62, 192), (None, None, "tensor")),
        ("params/token", (101, 64), (None, "fsdp")),
        ("params/encoder/norm1/scale", (3, 64), (None, None)),
        ("opt/0/mu/encoder/mlp/up/bias", (3, 256), (None, None)),
        ("buffers/codebook", (64, 16), (None, None)),
        ("params/stage/conv/kernel", (27, 16), (None, "fsdp")),
        ("params/stage/conv/kernel", (28, 15), ("fsdp", None)),
        ("step", (), ()),
    ],
)
def test_rules(path, shape, expected):
    assert sharding.spec(path, shape, mesh()) == PartitionSpec(*expected)


def test_axes_of_size_one_split_nothing():
    found = sharding.spec("params/x/up/kernel", (64, 64), mesh(8, 1, 1))
    assert found == PartitionSpec(None, None)


def test_what_nothing_divides_is_listed_and_too_much_is_an_error():
    params = {
        "params": {
            "a": {"up": {"kernel": jnp.zeros((64, 64))}},
            "b": {"up": {"kernel": jnp.zeros((5, 7))}},
        }
    }
    (line,) = sharding.check_divided(params, mesh())
    assert line == "params/b/up/kernel: 140 bytes, whole on every device"
    assert not sharding.check_divided(params, mesh(8, 1, 1))
    params["params"]["b"]["up"]["kernel"] = jnp.zeros((31, 31))
    with pytest.raises(UserError, match=r"19% of the model cannot be divided .*params/b/up/kernel"):
        sharding.check_divided(params, mesh())


def test_meshes_that_cannot_be():
    sizes = lambda *s: config.Mesh(replica=s[0], fsdp=s[1], tensor=s[2])
    assert sharding.resolved(sizes(2, -1, 2), 16) == (2, 4, 2)
    for wrong in ((1, 3, 1), (3, -1, 1), (1, 4, 1), (16, 1, 1)):
        with pytest.raises(UserError, match="does not divide 8 devices"):
            sharding.resolved(sizes(*wrong), 8)
    with pytest.raises(UserError, match=r"batch_size=3: not a multiple of replica x fsdp = 2"):
        sharding.make_mesh(sizes(1, 2, 1), 3, devices=jax.devices() * 2)


@pytest.fixture(scope="module")
def sharded():
    """What `tests/sharded.py` found on 8 simulated devices."""
    # Compiled quickly, run slowly: it is 20 small steps.
    xla = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    flags = {"XLA_FLAGS": xla, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.sharded"]
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "fsdp", "fsdp x tensor"])
def test_every_mesh_finds_the_losses_of_one_device(sharded, name):
    """20 steps of masked generation and contrast: every example is every other's negative, wherever it lies."""
    one, found = sharded["meshes"]["one"], sharded["meshes"][name]
    assert found["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert found["terms"] == pytest.approx(one["terms"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp", "fsdp x tensor"])
def test_each_device_holds_its_share(sharded, name):
    """Of the state in memory, and of the compiled program's arguments; vectors are whole, by rule."""
    found = sharded["meshes"][name]
    vectors = found["vector_bytes"]
    share = (found["state_bytes"] - vectors) / 8
    # Over `tensor` some small ones are whole, as the names of their dimensions say.
    most = 1.0 if name == "fsdp" else 1.2
    assert share <= found["local_bytes"] - vectors <= most * share
    assert found["argument_bytes"] - vectors < 1.05 * most * share
    assert not found["undivided"]


@pytest.mark.slow
def test_the_state_is_donated(sharded):
    for found in sharded["meshes"].values():
        assert found["alias_bytes"] >= found["local_bytes"]


@pytest.mark.slow
def test_a_kernel_that_the_compiler_cannot_split_runs_on_each_devices_part(sharded):
    assert sharded["kernel difference"] < 1e-5


@pytest.mark.slow
def test_a_ring_of_devices_finds_the_loss_and_the_gradients_of_one(sharded):
    assert max(sharded["ring differences"].values()) < 1e-5, sharded["ring differences"]


if __name__ == "__main__":
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for each in CONFIGS:
        path_of(each).write_text(golden(each))
