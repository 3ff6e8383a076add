"""Write `docs/api.md` from the docstrings of the public API: `make api` runs it."""

import inspect
import re
from pathlib import Path
from typing import Any

import latchkey

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Python API

Import these names from `latchkey`. Every other module is internal, see [upgrading.md](upgrading.md).
This page is written from the docstrings by `make api`.
"""


def render() -> str:
    """Return the page: one section for each public name, in alphabetical order."""
    sections = [section(name, getattr(latchkey, name)) for name in sorted(latchkey.__all__, key=str.lower)]
    return HEAD + "".join(sections)


def section(name: str, value: Any) -> str:
    """Return the heading, the signature and the docstring of one name, and the public methods of a class."""
    if name == "__version__":
        return f"\n## `{name}`\n\nThe version of the installed package, as text.\n"
    described = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    parts = [f"\n## `{name}{signature(value)}`\n\n{documentation(described)}\n"]
    if inspect.isclass(value):
        for method, found in vars(value).items():
            function = inspect.unwrap(getattr(found, "__func__", found))
            if method.startswith("_") or not inspect.isroutine(function) or not function.__doc__:
                continue
            parts.append(f"\n### `{name}.{method}{signature(function)}`\n\n{documentation(function)}\n")
    return "".join(parts)


def signature(value: Any) -> str:
    """Return the parameters of a callable as they are written, or nothing."""
    if not callable(value) or (inspect.isclass(value) and value.__init__ is object.__init__):
        return ""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    text = str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "...", text)  # a default without a text of its own


def documentation(value: Any) -> str:
    """Return the docstring without its indentation."""
    return inspect.cleandoc(value.__doc__ or "").strip()


if __name__ == "__main__":
    PAGE.write_text(render())
