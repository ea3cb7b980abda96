"""What a tag makes public, with a `make paper` that takes no time."""

import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import nomalib

ROOT = Path(__file__).parents[1]
TAG = f"v{nomalib.__version__}"
PAPER = """paper:
\tmkdir -p _build/html/book _runs/paper/records
\techo '{}' > _runs/paper/records/run.json
\techo 'Profile “paper” <span class="pre">'$(BUILT)'</span>' > _build/html/book/this_build.html
"""


with_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def released(folder, tag, built):
    """A clone that is tagged, and the outcome of .ci/release there."""
    (folder / ".ci").mkdir()
    for name in (".ci/release", "CITATION.cff", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "Makefile").write_text(PAPER, encoding="utf-8")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["tag", tag]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    told = dict(env=os.environ | {"BUILT": built}, capture_output=True, text=True)
    return subprocess.run([".ci/release", tag], cwd=folder, **told)


@with_git
def test_a_release_holds_the_site_its_records_and_how_to_cite_it(tmp_path):
    assert released(tmp_path, TAG, built=TAG).returncode == 0
    name = f"nomalib-{nomalib.__version__}"
    with zipfile.ZipFile(tmp_path / f"dist/{name}-site.zip") as site:
        assert f"{name}/book/this_build.html" in site.namelist()
    with tarfile.open(tmp_path / f"dist/{name}-records.tar.gz") as kept:
        assert "records/run.json" in kept.getnames()
    cited = yaml.safe_load((tmp_path / "dist/CITATION.cff").read_text())
    assert cited["version"] == nomalib.__version__ and cited["date-released"].year > 2000


@with_git
@pytest.mark.parametrize(
    ("tag", "built", "said"),
    [
        (TAG, f"{TAG}-3-gabcdef0", "the site was not built from"),
        (TAG, f"{TAG}-dirty", "the site was not built from"),
        ("v99.0", "v99.0", "another version"),
    ],
)
def test_a_site_of_other_sources_is_not_released(tmp_path, tag, built, said):
    refused = released(tmp_path, tag, built)
    assert refused.returncode == 1 and said in refused.stderr
    assert not (tmp_path / "dist").exists()


def test_the_changes_of_this_version_are_listed():
    assert re.search(
        rf"(?m)^## {re.escape(nomalib.__version__)}$", (ROOT / "CHANGELOG.md").read_text()
    )
