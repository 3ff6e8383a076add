"""The mutants of a module are the intended ones, and can replace its functions."""

import random

import pytest

from tests.mutants.__main__ import MODULES
from tests.mutants.changes import Mutator, functions_of, marked, modules_of, with_inner

CHANGES = {
    "self.began = True": ["if False: self.began = True", "False"],
    "raise LookupError": ["if False: raise LookupError"],
    "return x": ["return None; return x"],
    "return a == b": ["(a != b)", "return None; return a == b"],
    "if a and not b: f()": [
        "((a))",
        "((a) or (not b))",
        "((not b))",
        "(b)",
        "(not (a and not b))",
        "if False: f()",
    ],
    "while n < 10: pass": ["(n <= 10)", "(not (n < 10))", "11"],
    "'a docstring'": [],
    "assert x": [],
}


@pytest.mark.parametrize(("source", "changes"), CHANGES.items(), ids=CHANGES)
def test_a_statement_has_these_mutants(source: str, changes: list[str]) -> None:
    mutants = Mutator("module.py", f"class C:\n    def f(self):\n        {source}\n").mutants()

    assert sorted(mutant.text for mutant in mutants) == sorted(changes)
    assert {(mutant.function, mutant.statement // 3) for mutant in mutants} <= {(2, 1)}


def test_a_function_that_returns_a_bool_returns_both() -> None:
    mutants = Mutator("module.py", "def f(x) -> bool:\n    return not x\n").mutants()

    assert sorted(mutant.text for mutant in mutants) == [
        "(x)",
        "return False; return not x",
        "return True; return not x",
    ]


@pytest.mark.parametrize("module", modules_of(MODULES))
def test_a_mutant_can_replace_its_function(module: str) -> None:
    originals = functions_of(compile(Mutator(module).source, module, "exec"))
    mutants = Mutator(module).mutants()

    assert marked(module).keys() == originals.keys()
    for mutant in random.Random(1).sample(mutants, min(5, len(mutants))):
        code = mutant.code()
        assert code.co_name == originals[mutant.function].co_name
        assert code != originals[mutant.function]


def test_functions_inside_a_function_are_changed_with_it() -> None:
    source = "def f(g):\n    def h():\n        return g()\n    return h\n"
    function = functions_of(compile(source, "module.py", "exec"))[1]

    assert [(one.co_name, one.co_firstlineno) for one in with_inner(function)] == [("f", 1), ("h", 2)]
