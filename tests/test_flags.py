"""Bad input is one line and exit code 2, through the real entry."""

import json
import re

import pytest

import mm
from mm import flags, workdir
from mm.config import Origin
from mm.errors import UserError
from mm.main import main

TOY = "tests/toy_config.py"


def parsed(*args):
    return flags.parse(["mm", *args])


def test_overrides_are_typed_and_lists_keep_their_commas():
    command = parsed(
        "--config", TOY, "--config.optim.lr=3e-4", "--config.task.scales=(1.0,2.0)", "--workdir=x"
    )
    assert command.experiment.optim.lr == 3e-4 and command.experiment.task.scales == (1.0, 2.0)
    command = parsed("--mode=generate", "--workdir=x", "--input", "text=a thin seven, leaning left", "--input=image=a.png",
                     "--output", "text=a [MASK] seven, leaning right,image", "--seed=3")  # fmt: skip
    assert command.inputs == {"text": "a thin seven, leaning left", "image": "a.png"}
    assert (
        command.outputs == {"text": "a [MASK] seven, leaning right", "image": None}
        and command.seed == 3
    )


def test_what_overrides_changed_is_written_into_the_run(tmp_path):
    plain = parsed("--config", TOY)
    assert plain.origins == {"": Origin(TOY, {})}
    command = parsed("--config", TOY, "--config.optim.lr=0.5", "--config.task.scales=(1.0,2.0)")
    workdir.claim(tmp_path / "run", command.experiment, command.origins[""])
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["file"] == TOY and written["version"] == mm.__version__
    assert written["changed"] == {"optim.lr": [0.3, 0.5], "task.scales": [[1.0], [1.0, 2.0]]}
    assert parsed("--mode=evaluate", "--workdir=x").origins == {}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--config", TOY, "--config.optim.lrr=1"], "no field 'lrr'; did you mean 'lr'"),
        (["--config", TOY, "--config.optimm.lr=1"], "no field 'optimm'; did you mean 'optim'"),
        (["--config", TOY, "--config.optim.lr=fast"], "could not convert"),
        (["--config", TOY, "--config.steps=1.5"], "invalid literal for int"),
        (["--config", "configs/nothing.py"], "no such file"),
        (["--config", TOY, "--config.data.batch_size=0"], "must be positive"),
        (["--config", TOY, "--config.mesh.fsdp=3"], "does not divide"),
        (["--config", TOY, "--mode=trian"], "did you mean 'train'"),
        (["--config", TOY, "--confg.steps=3"], "no such flag"),
        (["--config", TOY, "stray"], "not a flag"),
        (["--mode=evaluate"], "needs --workdir"),
        (["--mode=generate"], "needs --output"),
        (["--mode=generate", "--workdir=nowhere"], "no such folder"),
        (["--workdir=nowhere"], "needs --config"),
        (["--mode=embed", "--workdir=nowhere", "--input", "seven"], "expected MODALITY=VALUE"),
    ],
)
def test_one_line_says_what_and_what_to_do(args, said, tmp_path, capsys, monkeypatch):
    bare = args in (["--mode=evaluate"], ["--mode=generate"])
    if not bare and not any(a.startswith("--workdir") for a in args):
        args = [*args, f"--workdir={tmp_path / 'run'}"]
    assert main(["mm", *args]) == 2
    out = capsys.readouterr()
    assert said in out.err and out.err.count("\n") == 1 and out.err.startswith("mm: ")


def test_a_config_must_return_an_experiment(tmp_path):
    (tmp_path / "c.py").write_text("def get_config():\n    return {'a': 1}\n")
    with pytest.raises(UserError, match="dict"):
        parsed("--config", str(tmp_path / "c.py"))


def test_help_shows_how_to_start(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--help")
    assert stop.value.code == 0 and "--config configs/quickstart.py" in capsys.readouterr().out


def test_help_answers_on_one_screen_and_a_half(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    said = capsys.readouterr().out
    assert said.count("\n") <= 36 and max(map(len, said.splitlines())) <= 120
    for word in ("--config.init=", "--workdir", "Ctrl-C", "--wandb=", "taskset", "--extra cuda", "docs/",
                 "--config FILE --help", "mm.load", "mm.report"):  # fmt: skip
        assert word in said
    for mode in flags.MODES[1:]:
        assert f"--mode={mode}" in said


def test_help_of_a_config_lists_every_field_so_that_it_can_be_overridden(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--config", "configs/quickstart.py", "--help")
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--config.optim.lr=0.003" in said and "optimizer steps" in said
    assert "--config.evals[0].batches=8" in said and "from the start of the split's order" in said
    assert "(the same as config.evals[1].kinds[0])" in said
    simple = [line.split()[0] for line in said.splitlines() if re.search(r"=-?[\d.]+  ", line)]
    assert len(simple) > 40
    parsed("--config", "configs/quickstart.py", *simple)


def test_a_config_that_needs_what_is_not_here_says_so(tmp_path):
    (tmp_path / "mine.py").write_text("from recipes_of_another import Data\n")
    with pytest.raises(UserError, match=r"mine\.py: needs 'recipes_of_another'.*run from"):
        parsed("--config", str(tmp_path / "mine.py"))
