"""The same folder by several workers of Apache Beam. Needs the extra `beam`; CI installs it for this file."""

import subprocess
import sys

import pytest

from tests import tokens
from tests.pipeline.test_tokenize import ROOT, contents, flags, make

pytest.importorskip("apache_beam")
pytestmark = pytest.mark.slow


def test_several_workers_write_the_same_bytes_and_name_what_is_wrong(tmp_path):
    fixture = tokens.unpacked(tmp_path)
    make(tokens.get_config(str(fixture)), tmp_path / "here")
    command = [
        sys.executable,
        "-m",
        "mm.main",
        *flags(fixture, tmp_path / "tokens"),
        "--runner=DirectRunner",
    ]
    done = subprocess.run([*command, "--workers=2"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert contents(tmp_path / "tokens") == contents(tmp_path / "here")
    command += ["--workers=1", "--config.data.source.spoilt=31", f"--out={tmp_path / 'spoilt'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.endswith(
        "tone/train, row 31: has the value nan; mend it, or take it out of the data\n"
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "spoilt" / "manifest.json").exists()
