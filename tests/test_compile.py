"""Compiling for TPUs that are not there: the figures by hand, and the compiler itself where it is installed."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from mm import compile as compiling
from mm import config, recipes, sharding
from mm.errors import UserError
from mm.main import main
from mm.models.attention import Mask, attention
from mm.models.encoder_decoder import Model
from mm.objectives.contrastive.ring import Side, ring_pair_loss
from mm.objectives.masking import Masking
from mm.perf.batch import random_batch
from mm.tasks import weighted
from mm.tasks.joint import Contrast, Joint

HLO = """HloModule jit_step, entry_computation_layout={...}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]) parameter(0)
  %gathered = bf16[64,4]{1,0} all-gather(%shard), dimensions={0}
  %started = (f32[8,4]{1,0}, f32[64,4]{1,0}) all-gather-start(%part), dimensions={0}
  %done = f32[64,4]{1,0} all-gather-done(%started)
}

%cond (p: (s32[], f32[8,4])) -> pred[] {
  %p = (s32[], f32[8,4]) parameter(0)
  %limit = s32[] constant(12)
  ROOT %more = pred[] compare(%i, %limit), direction=LT
}

%fused (a: f32[2]) -> f32[2] {
  %a = f32[2] parameter(0)
  ROOT %reduced = f32[2]{0} all-reduce(%a), to_apply=%add
}

ENTRY %main (state: f32[8,4]) -> f32[2] {
  %state = f32[8,4] parameter(0)
  %loop = (s32[], f32[8,4]) while(%init), condition=%cond, body=%body
  %both = (f32[10]{0}, s8[10]{0}) all-to-all(%u, %v)
  ROOT %out = f32[2] fusion(%loop), kind=kCustom, calls=%fused
}
"""


def test_collectives_are_counted_once_per_turn_of_their_loop():
    assert compiling.collectives(HLO) == {
        "all-gather": {"count": 24, "bytes": 12 * (64 * 4 * 2 + 64 * 4 * 4)},
        "all-to-all": {"count": 1, "bytes": 10 * 4 + 10},
        "all-reduce": {"count": 1, "bytes": 8},
    }


def test_what_the_compiler_says_of_a_program_that_is_too_large():
    said = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.21G of 15.75G hbm. Exceeded hbm capacity by 4.46G."
    found = compiling.too_large(said)
    assert found == {"needed": 20.21 * 2**30, "memory_per_chip": 15.75 * 2**30}
    said = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (343.96G) exceeds available HBM (15.75G)."
    assert compiling.too_large(said)["needed"] == 343.96 * 2**30
    with pytest.raises(UserError, match="the compiler refuses the step: INTERNAL"):
        compiling.too_large("INTERNAL: no")


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_flops_by_closed_form_are_those_that_xla_counts(space, mlp):
    """Of the forward pass, unrolled: XLA counts the body of a scan once."""
    model = Model(
        width=128, heads=4, encoder_layers=3, decoder_layers=2, embed_layers=2, embed_dim=32,
        mlp=mlp, bias=False, scan=False,
    )  # fmt: skip
    settings = Joint(
        model=model, masking=Masking(visible=10, targets=8), contrast=Contrast(modalities=2, share=0.5)
    )  # fmt: skip
    for one in (settings, dataclasses.replace(settings, contrast=Contrast(weight=0.0))):
        task, rows = one.build_for(space), 16
        params, _ = jax.eval_shape(task.init, jax.random.key(0))

        def loss(params, batch, task=task):
            terms, _ = task.loss(params, {}, batch, jax.random.key(0))
            return weighted(terms, task.weights)

        counted = jax.jit(loss).lower(params, random_batch(space, rows)).compile().cost_analysis()
        found = sum(task.flops(rows).values())
        assert found == pytest.approx(counted["flops"], rel=0.12)
        assert found < counted["flops"], "everything but matrix products is left out"


def test_the_trunk_of_xl_has_the_parameters_of_4m():
    """2.8 billion, by the closed form of its blocks."""
    exp = recipes.read("configs/scale.py:xl")[""]
    model = exp.task.model
    shapes = jax.eval_shape(exp.task.build_for(exp.data.source.space).init, jax.random.key(0))[0]
    trunk = {k: shapes[k] for k in ("encoder", "decoder")}
    count = sum(x.size for x in jax.tree.leaves(trunk))
    d, hidden = model.width, int(2 * 4 * model.width / 3)
    by_hand = 24 * (4 * d * d + 3 * d * hidden) + 24 * (8 * d * d + 3 * d * hidden)
    assert by_hand == pytest.approx(count, rel=1e-3) and 2.7e9 < count < 2.9e9
    assert len(exp.data.source.space.names) == 21


@pytest.mark.parametrize("size", ["tiny", "base", "smoke"])
def test_every_size_is_a_config(size):
    exp = recipes.read(f"configs/scale.py:{size}")[""]
    tables = exp.data.source.tokens("train")
    for name, m in zip(tables, exp.data.source.space.modalities, strict=True):
        assert tables[name].ids.shape == (64, m.size) and tables[name].ids.max() < m.vocabulary.size
        if m.vocabulary.eos is not None:
            last = tables[name].ids[np.arange(64), tables[name].length - 1]
            assert (last == m.vocabulary.eos).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/quickstart.py"], "needs --config FILE and --topology"),
        (["--topology=v5e:2x4"], "--mode=compile: needs --workdir RUN (or --config FILE)"),
        (["--config=configs/quickstart.py", "--topology=v5e:4x2"], "no such slice; did you mean"),
        (["--config=configs/scale.py:xxl", "--topology=v5e:2x4"], "no such size; did you mean 'xl'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line(arguments, said, capsys):
    assert main(["mm", "--mode=compile", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="needs libtpu: uv run --extra tpu pytest -m tpu"
)


def run(*arguments):
    command = [sys.executable, "-m", "mm.main", "--mode=compile", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.tpu
@needs_libtpu
def test_the_quickstart_for_a_slice_of_eight(tmp_path):
    out = tmp_path / "report.json"
    done = run("--config=configs/quickstart.py", "--topology=v5e-8", f"--json={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(out.read_text())
    assert report["chips"] == 8 and report["mesh"] == {"replica": 1, "fsdp": 8, "tensor": 1}
    assert report["fits"] and report["memory"]["total"] < 1e9
    # Donated: the state's memory is used again.
    assert report["memory"]["of them in place"] >= report["state_bytes_per_chip"]
    assert report["state_bytes_per_chip"] < 4.5 * 4 * report["parameters"] / 8
    assert report["collectives"]["all-gather"]["count"] > 0
    assert "fits: " in done.stdout and "GiB of 15.75 GiB" in done.stdout


@pytest.mark.tpu
@needs_libtpu
def test_splash_keeps_no_scores_in_memory():
    """Of 4,096 tokens: its programs (result and gradients) for 8 chips need less than one array of scores takes."""
    devices = compiling.devices("v5e:2x4")
    mesh = sharding.make_mesh(config.Mesh(fsdp=4, tensor=2), 8, devices)
    layout = lambda *axes: jax.NamedSharding(mesh, jax.P(("replica", "fsdp"), *axes))
    x = jax.ShapeDtypeStruct((8, 8, 4096, 64), "bfloat16", sharding=layout("tensor"))
    groups = jax.ShapeDtypeStruct((8, 4096), "int32", sharding=layout())
    causal = jax.ShapeDtypeStruct((8, 4096), "bool", sharding=layout())
    scores = 2 * 4 * 4096 * 4096 * 4  # of one chip's two examples and four heads

    def temporaries(impl):
        def loss(q, k, v, groups, causal):
            with sharding.traced_on(mesh):
                out = attention(q, k, v, Mask(groups, groups, causal), impl=impl)
            return out.astype("float32").sum()

        program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x, groups, causal).compile()
        assert "all-gather" not in compiling.collectives(program.as_text())
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries("splash") < scores < temporaries("xla")


@pytest.mark.tpu
@needs_libtpu
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_contrast_of_32k_examples_needs_little_memory(form):
    """All products would take 512 MiB a chip and array."""
    mesh = sharding.make_mesh(config.Mesh(fsdp=8), 8, compiling.devices("v5e:2x4"))
    rows = jax.NamedSharding(mesh, sharding.BATCH)
    shaped = lambda kind, *shape: jax.ShapeDtypeStruct((2**15, *shape), kind, sharding=rows)
    side = Side(shaped("bfloat16", 512), shaped("int32"), shaped("bool"))

    def loss(a, b):
        with sharding.traced_on(mesh):
            total, count = ring_pair_loss(a, b, jax.numpy.asarray(10.0), form=form)
        return total / count

    program = jax.jit(jax.grad(loss, (0, 1), allow_int=True)).lower(side, side).compile()
    assert program.memory_analysis().temp_size_in_bytes < 100 * 2**20
    assert "collective-permute" in compiling.collectives(program.as_text())
