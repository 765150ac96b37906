"""A family describes itself: only its own files and the registry name it, comments and docstrings aside."""

import ast
import io
import pickle
import re
import tokenize

import pytest

from tests.conftest import ROOT
from videogen.tasks.table import ROWS

PACKAGE = ROOT / "videogen"
# Family -> how it is named, and where its own files are, below videogen/.
FAMILIES = {
    "HunyuanVideo": (
        r"hunyuan",
        ("tasks/families/hunyuan", "checkpoints/networks/hunyuan", "models/hunyuan/", "pipelines/hunyuan_"),
    ),
    "Wan2.2": (r"wan22|wan2\.2", ("tasks/families/wan22", "pipelines/wan22_")),
    "SkyReels-V2": (r"skyreels.?v2", ("tasks/families/skyreels_v2",)),
    "SkyReels-V3": (r"skyreels.?v3", ("tasks/families/skyreels_v3",)),
}
REGISTRY = "tasks/table.py"
# Rows of flags and tasks of published commands, each with the repository that it comes from.
PUBLISHED = "cli/published.py"


def names(source: str, pattern: str) -> bool:
    """Return whether code matches a pattern, outside of comments and docstrings."""
    strings = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    documented = {line for node in strings for line in range(node.lineno, node.end_lineno + 1)}
    return any(
        re.search(pattern, token.string, re.IGNORECASE)
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type != tokenize.COMMENT and token.start[0] not in documented
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_registry_names_a_family(family):
    pattern, own = FAMILIES[family]
    files = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
    naming = {
        name
        for name, file in files.items()
        if not name.startswith(own) and names(file.read_text(encoding="utf-8"), pattern)
    }
    assert naming - {PUBLISHED} == {REGISTRY}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name} {row.family}")
def test_rows_travel_between_ranks(row):
    assert pickle.loads(pickle.dumps(row)) == row
