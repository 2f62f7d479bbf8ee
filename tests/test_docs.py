"""The pages lead where they say, and show the code that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """Those of a page's headings: in lower case, without punctuation, hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lost(path: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    found: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?:", link):
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    assert lost(page) == []


def test_a_lost_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c: d\n\n```sh\n# no heading\n```\n[a](page.md) [b](#a-b-c-d) [c](https://x) `[d](no.md)` [e](none.md) [f](#no-heading)\n"
    )
    assert lost(page) == ["none.md", "#no-heading"]


def test_every_page_is_in_the_readme():
    readme = prose(ROOT / "README.md")
    assert [page.name for page in PAGES if page.name != "README.md" and f"{page.relative_to(ROOT)})" not in readme] == []


def test_the_readme_shows_the_adapter_as_it_is():
    (shown,) = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert (ROOT / "docs/examples/outside/outside_layer.py").read_text(encoding="utf-8").endswith(shown)
