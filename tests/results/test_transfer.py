"""Results that are sent in pieces."""

import pytest

from videogen.results.output_paths import OutputPaths
from videogen.results.transfer import PIECE, ArrivingFiles, in_folder, pieces


def write(outputs):
    """Write files as a worker does, one larger than a piece."""
    pictures = ["0000.png", "0001.png"] if outputs.kind == "png" else [""]
    for folder in (outputs.path.parent, outputs.latents.parent, outputs.last_frame.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if pictures != [""]:
        outputs.path.mkdir()
    for number, name in enumerate(pictures):
        (outputs.path / name).write_bytes(bytes([number]) * (PIECE + 7))
    outputs.latents.write_bytes(b"latents")
    outputs.last_frame.write_bytes(b"picture")


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", "mp4"), ("a", "png")])
def test_a_sent_result_is_the_same(tmp_path, name, kind):
    here, there = tmp_path / "here", tmp_path / "there"
    beside = {"latents": here / "x" / "same.png", "last_frame": here / "y" / "same.png"}
    outputs = OutputPaths(path=here / name, kind=kind, **beside)
    sent = in_folder(outputs, there)
    assert len({*sent.paths}) == 4
    assert all(there in path.parents for path in sent.paths)
    write(sent)
    arriving, record = ArrivingFiles(outputs), {"seed": 1}
    for piece in pieces(sent):
        assert len(piece.content) <= PIECE
        arriving.add(piece)
    assert not outputs.path.exists()
    assert arriving.publish(record) == outputs
    for one, other in zip(sent.files.values(), outputs.files.values(), strict=True):
        for file in sorted(one.iterdir()) if one.is_dir() else [one]:
            assert file.read_bytes() == (other / file.name if one.is_dir() else other).read_bytes()
    assert record["output"] == name
    assert outputs.sidecar.is_file()
    assert not list(here.rglob(".*"))


def test_what_is_not_published_is_removed(tmp_path):
    outputs = OutputPaths(path=tmp_path / "a.mp4", kind="mp4")
    sent = in_folder(outputs, tmp_path / "there")
    sent.path.parent.mkdir(parents=True)
    sent.path.write_bytes(b"video")
    arriving = ArrivingFiles(outputs)
    for piece in pieces(sent):
        arriving.add(piece)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".a.mp4")]
    arriving.close()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
