"""The notebook in ``examples/`` is kept without outputs, and runs."""

import json
import shutil

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples/first_videos.ipynb"


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["source"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises what a cell raises
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("<video" in output.get("text/html", "") for output in outputs) == 1
    assert sum("image/png" in output for output in outputs) == 2  # a frame, and the comparison
    assert {path.name for path in tmp_path.iterdir()} >= {"run.mp4", "run.json", "ball.gif"}
