"""What the package says of itself: one version, addresses that are known to exist, no e-mail address."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

import s1_jax
from tests.runs import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")


def test_the_version_is_said_once_and_the_citation_has_it():
    assert PYPROJECT["dynamic"] == ["version"] and re.fullmatch(r"\d+\.\d+\.\d+", s1_jax.__version__)
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", s1_jax.__version__)
    assert citation["authors"] == PYPROJECT["authors"] == [{"name": "the s1_jax authors"}]
    (paper,) = citation["references"]
    assert len(paper["authors"]) == 10 and paper["url"] == PYPROJECT["urls"]["Paper"]


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "README.md"]
)
def test_no_file_at_the_top_has_an_email_address(name):
    assert not EMAIL.search((PROJECT / name).read_text())


def test_workflows_check_out_the_history_that_ci_counts():
    for path in (PROJECT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            runs = [step["run"] for step in job["steps"] if "run" in step]
            depths = [
                step.get("with", {}).get("fetch-depth") for step in job["steps"] if "checkout" in step.get("uses", "")
            ]
            assert (".ci/run" in runs) <= (depths == [0])


def test_every_hook_is_a_program_of_the_venv():
    repos = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "mypy", "codespell", "shellcheck", "links"]
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)
