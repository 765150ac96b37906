"""JSON of checkpoints: what is refused, and how."""

import pytest

from videogen.checkpoints import json_files
from videogen.errors import CheckpointError


def test_json_of_a_checkpoint(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"a": 1}')
    assert json_files.read_json(file) == {"a": 1}
    for text, what in (("[1]", "not a JSON object"), ("{", "not readable as JSON (Expecting")):
        file.write_text(text)
        with pytest.raises(CheckpointError) as caught:
            json_files.read_json(file)
        assert str(caught.value).startswith(f"{file}: {what}")
        assert str(caught.value).endswith("; download it again")


def test_json_of_a_checkpoint_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "LARGEST_JSON", 10)
    (tmp_path / "a").write_text('{"a": 1}   ')
    with pytest.raises(CheckpointError, match="larger than 1e-05 MB"):
        json_files.read_json(tmp_path / "a")
