"""Changes of a module's syntax tree, one at a time, for ``mutate``."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

MODULE, CLASS = -1, -2  # places outside of functions
COMPARISONS = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: its line, what it does, the changed tree, and where it is (see ``_places``)."""

    line: int
    what: str
    tree: ast.Module
    place: int

    def __str__(self) -> str:
        return f"{self.line}: {self.what}"


def changes(node: ast.AST) -> Iterator[ast.AST]:  # noqa: PLR0912 - a table
    """Yield what a node may be changed to."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[first, *rest]) if type(first) in COMPARISONS:
            new.ops = [COMPARISONS[type(first)](), *rest]
            yield new
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            new.op = OPERATORS[type(op)]()
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield new.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)) if " " not in value:
            yield ast.Constant(f"{value}x")
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            new.test = ast.UnaryOp(ast.Not(), test)
            yield new
        case ast.comprehension(ifs=[test, *rest]):
            new.ifs = [ast.UnaryOp(ast.Not(), test), *rest]
            yield new
        case ast.Call(func=ast.Name("min" | "max" | "suppress")):
            return
        case ast.Call(args=[first, second, *rest]) if not isinstance(first, ast.Starred):
            new.args = [second, first, *rest]
            yield new
        case ast.Expr(value=ast.Call() | ast.Yield()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.AugAssign():
            yield ast.Pass()
        case ast.With(items=items, body=body):
            for index, item in enumerate(items):
                if item.optional_vars is None:
                    left = items[:index] + items[index + 1 :]
                    yield ast.With(left, body) if left else ast.If(ast.Constant(True), body, [])


class _Changer(ast.NodeTransformer):
    """Makes the change number ``wanted`` of a tree, in the order in which it is walked."""

    def __init__(self, tree: ast.Module, wanted: int) -> None:
        self.wanted, self.seen = wanted, 0
        self.staying = {id(part) for node in ast.walk(tree) for part in _staying(node)}
        self.found: tuple[ast.AST, ast.AST] | None = None  # what was changed, and what to show of it
        self.before = ""
        self.above: list[ast.AST] = []

    def visit(self, node: ast.AST) -> ast.AST:
        if self.found is not None or id(node) in self.staying:
            return node
        for changed in changes(node):
            self.seen += 1
            if self.seen > self.wanted:
                ast.copy_location(changed, node)
                above = self.above[-1]
                shown = above if isinstance(above, SHOWN) else node
                self.before = _line(shown)
                self.found = node, shown if shown is above else changed
                return changed
        self.above.append(node)
        node = self.generic_visit(node)
        self.above.pop()
        return node


SHOWN = (
    ast.BinOp,
    ast.BoolOp,
    ast.Call,
    ast.Compare,
    ast.Return,
    ast.Assign,
    ast.Subscript,
    ast.Slice,
    ast.keyword,
)


def _line(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        node = node.test
    return (ast.unparse(node).splitlines() or [""])[0]


def _staying(node: ast.AST) -> list[ast.AST]:  # noqa: PLR0911 - a table
    """Return what of a node is not changed, with all that is in it."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom() | ast.Assert():
            return [node]
        case (
            ast.Raise(exc=ast.Call(func=ast.Name("AssertionError"))) | ast.If(test=ast.Name("TYPE_CHECKING"))
        ):
            return [node]
        case ast.FunctionDef(decorator_list=decorators, returns=returns):
            return [*decorators, *([returns] if returns else [])]
        case ast.ClassDef(decorator_list=decorators):
            return decorators
        case ast.arg(annotation=ast.AST() as annotation) | ast.AnnAssign(annotation=annotation):
            return [annotation]
        case ast.Call(func=ast.Name("TypeVar" | "cast")):
            return [node]
    return []


def _places(tree: ast.Module) -> dict[int, int]:
    """Return where each node belongs: the first line of its function, MODULE or CLASS."""
    places = {id(part): MODULE for part in ast.walk(tree)}
    for outer in tree.body:
        if isinstance(outer, ast.ClassDef):
            places |= {id(part): CLASS for part in ast.walk(outer)}
        for function in outer.body if isinstance(outer, ast.ClassDef) else [outer]:
            if isinstance(function, ast.FunctionDef):
                first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
                places |= {id(part): MODULE for part in ast.walk(function.args)}
                places |= {id(part): first for statement in function.body for part in ast.walk(statement)}
    return places


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    number = 0
    while True:
        tree = ast.parse(source)
        places = _places(tree)
        changer = _Changer(tree, number)
        tree = ast.fix_missing_locations(changer.visit(tree))
        if changer.found is None:
            return
        node, shown = changer.found
        line = getattr(node, "lineno", None) or node.target.lineno  # a comprehension has no line of its own
        yield Mutant(line, f"{changer.before}  ->  {_line(shown)}", tree, places[id(node)])
        number += 1
