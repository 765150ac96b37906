"""Text and JSON: how they are read, and what is too large or too deep to be."""

import json

import pytest

from videogen import files


def test_text(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert files.read_text(file) == "a\nb\nc\n"
    assert files.read_text(file, 10) == "a\nb\nc\n"
    for path, limit, what, fix in (
        (file, 9, "larger than 9e-06 MB", "split it"),
        (tmp_path, 10, "is not a regular file", "give a text file"),
        (tmp_path / "b", 10, "cannot be read (No such file or directory)", "check the path"),
    ):
        with pytest.raises(files.TextError) as caught:
            files.read_text(path, limit)
        assert (str(caught.value), caught.value.fix) == (what, fix)
    file.write_bytes(b"\xff")
    with pytest.raises(files.TextError, match="is not UTF-8 text") as caught:
        files.read_text(file)
    assert caught.value.fix == "save it as UTF-8"


def test_limits_are_what_they_are():
    assert (files.LARGEST_TEXT, files.LARGEST_JSON, files.DEEPEST) == (50_000_000, 16_000_000, 64)
    assert files.STALE_AFTER == 24 * 60 * 60


def nested(depth, kind):
    return "[" * depth + "]" * depth if kind == "list" else '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


@pytest.mark.parametrize("kind", ["list", "mapping"])
def test_deep_json(kind, monkeypatch):
    assert files.parse_json(nested(64, kind)) == json.loads(nested(64, kind))
    for depth in (65, 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            files.parse_json(nested(depth, kind))


def test_large_json(monkeypatch):
    monkeypatch.setattr(files, "LARGEST_JSON", 1_000_000)
    assert files.parse_json("1" + " " * 999_999) == 1
    with pytest.raises(ValueError, match="larger than 1 MB"):
        files.parse_json("1" + " " * 1_000_000)


@pytest.mark.parametrize(
    "text", ['"\\ud800"', '["\\ud800"]', '{"\\ud800": 1}', '{"a": {"b": "\\ud800"}}', "{"]
)
def test_text_that_is_no_unicode(text):
    with pytest.raises(ValueError):
        files.parse_json(text)


def test_plain_things_pass():
    files.check_plain({"a": ["ä", 1, None, ("x", {"y"})]})
    for made in ((["\ud800"],), ({"\ud800"},)):
        with pytest.raises(ValueError, match="surrogates"):
            files.check_plain(made)
