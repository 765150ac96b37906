"""What a file holds in place of what its name says."""

import pytest

from videogen.media.file_contents import UNFINISHED, other_content, unfinished_downloads

CONTENTS = {
    "nothing": (b"", "is empty; download it again"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
    "macOS": (b"\x00\x05\x16\x07" + bytes(80), "is macOS metadata"),
    "zeros": (bytes(100), "begins with zeros"),
    "page": (b"\xef\xbb\xbf\r\n <!DOCTYPE html><title>Log in</title>", "is a web page"),
    "XML": (b"<?xml version='1.0'?><Error/>", "is a web page"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_other_contents(tmp_path, case):
    content, said = CONTENTS[case]
    (tmp_path / "w.bin").write_bytes(content)
    assert other_content(tmp_path / "w.bin").startswith(said)


@pytest.mark.parametrize("content", [bytes(63), b"\x80\x02}q\x00.", b"version 2", b"a <html> later"])
def test_what_is_not_odd(tmp_path, content):
    (tmp_path / "w.bin").write_bytes(content)
    assert other_content(tmp_path / "w.bin") is None


@pytest.mark.parametrize("end", UNFINISHED)
def test_downloads_that_did_not_finish(tmp_path, end):
    (tmp_path / "w.bin").write_bytes(b"x")
    (tmp_path / f"w.bin{end}").write_bytes(b"x")
    said = other_content(tmp_path / "w.bin")
    assert said == f"its download did not finish (w.bin{end} is beside it); resume it"
    assert unfinished_downloads(tmp_path) == [f"w.bin{end}"]
