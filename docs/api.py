"""Write `docs/api.md` from the docstrings of the public API: `make api` runs it."""

import inspect
import re
from pathlib import Path
from typing import Any

from sqlalchemy import TypeDecorator

import latchkey
from latchkey import testing

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Python API

Import these names from `latchkey`, and those for [tests](your-own-package.md#tests) from `latchkey.testing`. Every other module is internal, see [upgrading.md](upgrading.md).
`make api` generates this page from the docstrings. Methods that it does not list are internal.
"""

# Its methods that `AsyncSession` does not have are for the middleware and the adapter.
ONLY_DIFFERENCES = {latchkey.RequestSession}

HEADINGS = {"Args": "Arguments", "Raises": "Raises", "Returns": "Returns", "Yields": "Yields"}


def render() -> str:
    """Return the page: one section for each public name, in alphabetical order."""
    sections = [section(name, getattr(latchkey, name)) for name in sorted(latchkey.__all__, key=str.lower)]
    for_tests = [section(f"testing.{name}", getattr(testing, name)) for name in testing.__all__]
    return HEAD + "".join(sections + for_tests)


def section(name: str, value: Any) -> str:
    """Return the heading, the signature and the docstring of one name, and the public methods of a class."""
    if name == "__version__":
        return f"\n## `{name}`\n\nThe version of the installed package, as text.\n"
    if inspect.ismodule(value):
        return module_section(name, value)
    described = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    parts = [f"\n## `{name}{signature(value)}`\n\n{documentation(described)}\n"]
    if inspect.isclass(value):
        for method, found in vars(value).items():
            function = inspect.unwrap(getattr(found, "__func__", getattr(found, "function", found)))
            if method.startswith("_") or not inspect.isroutine(function) or not function.__doc__:
                continue
            if not is_listed(value, method, function.__doc__):
                continue
            parts.append(f"\n### `{name}.{method}{signature(function)}`\n\n{documentation(function)}\n")
    return "".join(parts)


def module_section(name: str, module: Any) -> str:
    """Return the heading and the docstring of a module, and its functions that are named in `__all__`."""
    parts = [f"\n## `{name}`\n\n{documentation(module)}\n"]
    for function in module.__all__:
        found = getattr(module, function)
        parts.append(f"\n### `{name}.{function}{signature(found)}`\n\n{documentation(found)}\n")
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


def is_listed(kind: type, method: str, text: str) -> bool:
    """Return whether the page lists a method; methods that another package documents, or calls itself, are omitted."""
    if issubclass(kind, TypeDecorator) and hasattr(TypeDecorator, method):
        return False
    bases = [base for base in kind.__mro__[1:] if not base.__module__.startswith("latchkey.")]
    documented = [base for base in bases if hasattr(base, method)]
    if kind in ONLY_DIFFERENCES and not documented:
        return False
    return all(getattr(base, method).__doc__ != text for base in documented)


def documentation(value: Any) -> str:
    """Return the docstring as Markdown: lists of arguments and errors, and fenced examples."""
    text = inspect.cleandoc(value.__doc__ or "").strip()
    text = re.sub(r":\w+:`[.~]?([^`]+)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r"^(Args|Raises|Returns|Yields):\n((?:    .*\n?|\n)+)", as_list, text, flags=re.MULTILINE)
    return re.sub(r"::\n\n((?:    .*\n?|\n)+)", as_example, text).strip()


def as_list(found: re.Match[str]) -> str:
    """Return a block of a docstring as a Markdown list, with the names of arguments and errors as code."""
    name, block = found[1], inspect.cleandoc(found[2])
    entries = re.split(r"\n(?=\S)", block) if name in {"Args", "Raises"} else [block]
    items = [re.sub(r"\s*\n\s*", " ", entry) for entry in entries]
    if name in {"Args", "Raises"}:
        items = [re.sub(r"^([\w., *]+?): ", named, item) for item in items]
    if name not in {"Args", "Raises"}:
        return f"**{HEADINGS[name]}:** {items[0]}\n\n"
    return f"**{HEADINGS[name]}:**\n\n" + "".join(f"- {item}\n" for item in items) + "\n"


def named(found: re.Match[str]) -> str:
    """Return the names that begin an entry, each as code."""
    return ", ".join(f"`{one}`" for one in found[1].split(", ")) + ": "


def as_example(found: re.Match[str]) -> str:
    """Return an indented example as a fenced block."""
    return f":\n\n```python\n{inspect.cleandoc(found[1])}\n```\n\n"


if __name__ == "__main__":
    PAGE.write_text(render())
