"""docs/quickstart.ipynb runs from top to bottom in an empty folder, and is kept without outputs."""

from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

nbformat: Any = pytest.importorskip("nbformat")
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count]
    assert len(notebook.cells) > 1.5 * len(code)  # it teaches


def test_it_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "\n".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "RLOO [[-3.0, -1.5, 4.5]]" in said
    assert "policy.kl_first                            0\n" in said
    assert "told from chance only from" in said
    assert (tmp_path / "runs/notebook/report.html").is_file()
    assert (tmp_path / "runs/notebook/export/policy-merged/model.safetensors").is_file()
