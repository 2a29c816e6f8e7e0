"""The site of the documentation: builds without a warning, and needs nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ZENSICAL = Path(sys.executable).with_name("zensical")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    return folder


def build(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ZENSICAL, "build", "--strict", "--clean"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_it_builds_and_every_page_is_there(project: Path) -> None:
    done = build(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    pages = [path.relative_to(project / "docs") for path in (project / "docs").rglob("*.md")]
    assert [page for page in pages if not (project / "site" / page.with_suffix(".html")).is_file()] == []


def test_it_asks_no_other_host(project: Path) -> None:
    if not (project / "site").is_dir():
        build(project)
    wanted = re.compile(
        r"<(?:script|img|iframe|source)[^>]+src=[\"']?(?:https?:)?//|<link[^>]+href=[\"']?(?:https?:)?//|@import"
    )
    html = list((project / "site").rglob("*.html"))
    assert len(html) > 30
    assert [path.name for path in html if wanted.search(path.read_text(encoding="utf-8"))] == []


def test_a_link_that_leads_nowhere_fails(project: Path) -> None:
    start = project / "docs" / "index.md"
    start.write_text(start.read_text() + "\n[nowhere](nowhere.md)\n")
    assert build(project).returncode != 0
