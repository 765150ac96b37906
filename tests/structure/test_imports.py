"""Who may import whom: the folders of ``videogen/`` in layers, and every import goes down."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "videogen"
# The highest layer first; folders of one layer do not import each other.
LAYERS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"cli"},
            {"server"},
            {"engine"},
            {"pipelines", "runtime"},
            {"planning"},
            {"models", "prompts"},
            {"checkpoints", "diffusion", "review"},
            {"tasks", "results"},
            {"media"},
            {"files", "distributed"},
            {"errors"},
        ),
    )
)
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
# Folders and files that import no framework, and what that is.
LIGHT = (
    "tasks",
    "results",
    "checkpoints",
    "planning",
    "review",
    "media",
    "errors",
    "files",
    "distributed",
)
FRAMEWORKS = ("torch", "diffusers", "transformers")


def imports_of(file: Path) -> list[tuple[int, str]]:
    """Return (line, module) of every import of the project, those in functions and for types included.

    ``import videogen`` is the package's face, which pipelines ask to load themselves.
    """
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(node.lineno, name) for name in names if name.startswith("videogen.")]
    return found


def layer_of(module: str) -> str:
    """Return the folder of ``videogen/``, or the file beside them, that a module is in."""
    return module.split(".")[1]


def test_every_import_goes_down():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if module == "videogen.__init__":  # the face of the package: it imports what it shows when asked
            continue
        own = layer_of(module)
        for line, name in imports_of(file):
            other = layer_of(name)
            if other != own and other in LEVEL and LEVEL[other] <= LEVEL[own]:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_module_is_in_a_layer():
    beside = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    folders = {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")}
    assert beside | folders == set(LEVEL)


def test_no_circles_within_a_folder():
    graph: dict[str, set[str]] = {}
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in PACKAGE.rglob("*.py")
    }
    for module, file in modules.items():
        if module != "videogen":
            names = {name for _, name in imports_of(file)}
            graph[module] = {
                target for name in names for target in (name, name.rpartition(".")[0]) if target in modules
            } - {module, "videogen"}
    waiting = dict(graph)
    while free := [module for module, needs in waiting.items() if not needs & set(waiting)]:
        for module in free:
            del waiting[module]
    assert not waiting, f"in circles: {sorted(waiting)}"


def test_light_folders_need_no_framework():
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted(PACKAGE.rglob("*.py"))
        if layer_of(".".join(file.relative_to(ROOT).with_suffix("").parts)) in LIGHT
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {FRAMEWORKS!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
