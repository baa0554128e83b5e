"""Relative links of README, the files beside it and docs/: the file is there, and so is the heading."""

import re
from urllib.parse import unquote

import pytest

from tests.pages import PAGES, PROJECT, anchors_of, links_of


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_relative_links_lead_somewhere(page):
    for line, target in links_of(page):
        name, _, anchor = unquote(target).partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.relative_to(PROJECT)}:{line} links to {target}, which does not exist"
        assert there.is_relative_to(PROJECT), f"{page.relative_to(PROJECT)}:{line} links out of the project: {target}"
        if anchor and there.suffix == ".md" and "<!-- generated: " not in there.read_text():  # those Sphinx checks
            assert anchor in anchors_of(there), f"{page.relative_to(PROJECT)}:{line}: {target} names no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_files_of_the_project_that_a_page_names_exist(page):
    if page.name == "CHANGELOG.md":  # of earlier versions
        return
    for name in re.findall(r"`((?:s1_jax|configs|scripts|benchmarks|tests|docs)/[\w./-]+\.\w+)`", page.read_text()):
        assert (PROJECT / name).exists() or "NAME" in name, (
            f"{page.relative_to(PROJECT)} names {name}, which does not exist"
        )


def test_a_page_that_is_missing_and_a_heading_that_is_missing_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two` three: four\n\n[a](#one-two-three-four) ![b](gone.png) [c](https://x.example/y)\n")
    assert links_of(page) == [(3, "#one-two-three-four"), (3, "gone.png")]
    assert anchors_of(page) == {"one-two-three-four"}
