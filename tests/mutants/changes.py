"""The mutants of a module, and the statements that a run passes."""

import ast
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType

import msgspec

ROOT = Path(__file__).parents[2]

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Mutant(msgspec.Struct, frozen=True):
    """One change of a module: `text` replaces the bytes from `start` to `end`.

    `statement` is the line of the changed statement, and `function` the first line of the outermost function around it.
    """

    module: str
    function: int
    statement: int
    line: int
    change: str
    start: int
    end: int
    text: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.change}"

    def code(self) -> CodeType:
        """Return the code of the changed function."""
        source = (ROOT / self.module).read_bytes()
        changed = source[: self.start] + self.text.encode() + source[self.end :]
        return functions_of(compile(changed, self.module, "exec"))[self.function]


class Mutator:
    """All mutants of one module."""

    def __init__(self, module: str, source: str | None = None) -> None:
        self.module = module
        self.source = (ROOT / module).read_text() if source is None else source
        self.function = 0
        self.statement = 0
        self.is_bool = False
        self.offsets = [0]
        for line in self.source.encode().splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))

    def mutants(self) -> list[Mutant]:
        """Return the mutants of all functions."""
        found: dict[tuple[int, int, str], Mutant] = {}
        for first_line, function in outermost(ast.parse(self.source)):
            self.function = first_line
            for mutant in self.inside(function):
                if mutant.text not in same_as(self.source.encode()[mutant.start : mutant.end].decode()):
                    found[mutant.start, mutant.end, mutant.text] = mutant
        return list(found.values())

    def inside(self, function: Function) -> Iterator[Mutant]:
        """Return the mutants of the statements of a function."""
        outer = self.is_bool
        self.is_bool = isinstance(function.returns, ast.Name) and function.returns.id == "bool"
        for statement in function.body:
            yield from self.of(statement)
        self.is_bool = outer

    def of(self, node: ast.AST) -> Iterator[Mutant]:
        """Return the mutants of a node and of the nodes inside it."""
        if isinstance(node, ast.stmt):
            self.statement = node.lineno
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from self.inside(node)
                return
            case ast.Assert() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
                return  # for the type checker; without exact positions; a docstring
        yield from self.of_itself(node)
        statement = self.statement
        for name, field in ast.iter_fields(node):
            if name not in {"annotation", "returns", "decorator_list"}:
                for child in field if isinstance(field, list) else [field]:
                    if isinstance(child, ast.AST):
                        yield from self.of(child)
                        self.statement = statement

    def of_itself(self, node: ast.AST) -> Iterator[Mutant]:
        """Return the mutants of a node alone."""
        if isinstance(node, ast.stmt):
            for text in self.of_statement(node):
                yield self.replaced(node, text)
        if isinstance(node, ast.expr):
            for text in self.of_expression(node):
                yield self.replaced(node, text)
        for test in conditions(node):
            if not isinstance(test, ast.UnaryOp):  # a `not` is dropped below
                yield self.replaced(test, f"(not ({self.text(test)}))")

    def of_statement(self, node: ast.stmt) -> Iterator[str]:
        """Return the texts that replace a statement; it stays behind them, never run, with the variables that it closes over."""
        match node:
            case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.AnnAssign() | ast.Delete() | ast.Raise():
                yield f"if False: {self.text(node)}"
            case ast.Return(value=ast.expr()):
                for value in (True, False) if self.is_bool else (None,):
                    yield f"return {value}; {self.text(node)}"

    def of_expression(self, node: ast.expr) -> Iterator[str]:
        """Return the texts that replace an expression."""
        match node:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield f"({self.text(operand)})"
            case ast.BoolOp(op=op, values=values):
                word, other = (" and ", " or ") if isinstance(op, ast.And) else (" or ", " and ")
                parts = [f"({self.text(one)})" for one in values]
                yield f"({other.join(parts)})"
                for place in range(len(parts)):
                    yield f"({word.join(parts[:place] + parts[place + 1 :])})"
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                yield f"({self.text(left)} {COMPARISONS[type(op)]} {self.text(right)})"
            case ast.Constant(value=bool(value)):
                yield str(not value)
            case ast.Constant(value=int(value)):
                yield str(value + 1)

    def text(self, node: ast.expr | ast.stmt) -> str:
        return ast.get_source_segment(self.source, node) or ast.unparse(node)

    def replaced(self, node: ast.expr | ast.stmt, text: str) -> Mutant:
        """Return the mutant with `text` in place of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self.offsets[node.lineno - 1] + node.col_offset
        end = self.offsets[node.end_lineno - 1] + node.end_col_offset
        before = " ".join(self.source.encode()[start:end].decode().split())
        change = f"`{before}` → `{' '.join(text.split())}`"
        return Mutant(self.module, self.function, self.statement, node.lineno, change, start, end, text)


def conditions(node: ast.AST) -> list[ast.expr]:
    """Return the conditions of a statement, an expression or a comprehension."""
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            return [test]
        case ast.comprehension(ifs=tests):
            return tests
    return []


def same_as(source: str) -> set[str]:
    """Return the texts that would change nothing."""
    return {source, f"{source}; {source}"}


def outermost(tree: ast.Module) -> Iterator[tuple[int, Function]]:
    """Return the functions and methods of a module with their first lines; not the functions inside them."""
    nodes: list[ast.stmt] = tree.body
    while nodes:
        for node in nodes:
            if isinstance(node, Function):
                yield min([node.lineno, *(one.lineno for one in node.decorator_list)]), node
        nodes = [child for node in nodes if isinstance(node, ast.ClassDef) for child in node.body]


def functions_of(module: CodeType) -> dict[int, CodeType]:
    """Return the code of the functions and methods of a compiled module by their first lines."""
    found: dict[int, CodeType] = {}
    for inner in (one for one in module.co_consts if isinstance(one, CodeType)):
        if inner.co_flags & inspect.CO_OPTIMIZED:  # a function; otherwise the body of a class
            found[inner.co_firstlineno] = inner
        else:
            found |= functions_of(inner)
    return found


def with_inner(function: CodeType) -> list[CodeType]:
    """Return the code of a function and of the functions inside it, in the order of the source."""
    inner = [one for one in function.co_consts if isinstance(one, CodeType)]
    return [function, *(code for one in inner for code in with_inner(one))]


class Marked(ast.NodeTransformer):
    """A module whose functions call `_pass(line)` before every statement."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                setattr(node, name, [part for one in block for part in (mark(one), one)])
        return node


def mark(statement: ast.stmt) -> ast.stmt:
    called = ast.Call(ast.Name("_pass", ast.Load()), [ast.Constant(statement.lineno)], [])
    return ast.fix_missing_locations(ast.copy_location(ast.Expr(called), statement))


def marked(module: str) -> dict[int, CodeType]:
    """Return the functions of a module by their first lines, with calls of `_pass(line)` before every statement."""
    tree = Marked().visit(ast.parse((ROOT / module).read_text()))
    return functions_of(compile(tree, module, "exec"))


def modules_of(patterns: Sequence[str]) -> list[str]:
    """Return the modules that the patterns name, in a fixed order."""
    return sorted({str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)})
