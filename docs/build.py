"""The parts of the documentation site that are not pages of this folder.

MkDocs loads this file as a hook: it adds the pages of the root folder and the list of problems, and points links to files of the repository at the source. `python docs/build.py FOLDER` checks a site that was built: it names every
font, script, style or picture that a page would load from another host.
"""

import re
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
FROM_ROOT = {
    "README.md": "start.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
NOT_LOADED = {"canonical", "prev", "next", "alternate"}
IN_STYLE = re.compile(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s]+)")


def problems_page() -> str:
    """Return the page of all problems."""
    from latchkey.service.problems.kinds import KINDS  # noqa: PLC0415 - the check needs no Latchkey

    parts = ["# Problems", "Every error is a problem document (RFC 9457) with one of these codes."]
    for code, kind in KINDS.items():
        parts.append(f"## `{code}`\n\n**{kind.status}. {kind.title}.** {kind.explanation}")
    return "\n\n".join(parts) + "\n"


def relinked(text: str, *, folder: str) -> str:
    """Return a page whose links lead to pages of the site, or to the source.

    Args:
        text: of the page.
        folder: of the page in the repository: `docs`, `docs/decisions`, or empty for the root.
    """

    def replace(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        if not target or "://" in target or target.startswith(("mailto:", "/")):
            return found[0]
        path = (ROOT / folder / target).resolve().relative_to(ROOT).as_posix()
        if path in FROM_ROOT:
            to = FROM_ROOT[path]
        elif path.startswith("docs/") and path.endswith((".md", ".json")):
            to = path.removeprefix("docs/")
        else:
            return f"{found[1]}{SOURCE}/blob/main/{path}{found[3]}"
        up = "../" * folder.removeprefix("docs").count("/")
        return f"{found[1]}{up}{to}{'#' if anchor else ''}{anchor}{found[3]}"

    return LINK.sub(replace, text)


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages; a hook of MkDocs."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the check needs no MkDocs

    for name, to in FROM_ROOT.items():
        text = relinked((ROOT / name).read_text(), folder="")
        files.append(File.generated(config, to, content=text))
    files.append(File.generated(config, "problems.md", content=problems_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001 - the shape that MkDocs asks for
    """Return the text of a page of this folder with its links; a hook of MkDocs."""
    if page.file.generated_by is not None:
        return markdown
    folder = Path("docs", page.file.src_uri).parent.as_posix()
    return relinked(markdown, folder=folder)


class Loads(HTMLParser):
    """The URLs of what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag loads."""
        values = dict(attrs)
        url = values.get(LOADING.get(tag, "")) or ""
        if urlsplit(url).netloc and not NOT_LOADED & set((values.get("rel") or "").split()):
            self.found.append(url)
        self.found += IN_STYLE.findall(values.get("style") or "")


def loads_from_elsewhere(site: Path) -> list[str]:
    """Return each file of a site with a URL of another host that it loads."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            parser = Loads()
            text = path.read_text()
            parser.feed(text)
            found += [f"{path.name}: {url}" for url in parser.found]
        elif path.suffix == ".css":
            found += [f"{path.name}: {url}" for url in IN_STYLE.findall(path.read_text())]
    return found


if __name__ == "__main__":
    faults = loads_from_elsewhere(Path(sys.argv[1]))
    sys.exit("\n".join(faults) if faults else 0)
