"""The page for developers: every file that it names is there, and the tables that it says are in them."""

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/development.md").read_text(encoding="utf-8")
PLACEHOLDERS = re.compile(r"\b(TASK|FAMILY|NETWORK)\b")  # of files that are still to be made
FILE = re.compile(r"`([\w./]+\.(?:py|yaml|sh))`")
TABLE = re.compile(r"`([A-Z][A-Z_]+)`")


def places(name):
    """Return the files that a name on the page may mean; some are named as seen from their folder."""
    return [*ROOT.glob(name), *(ROOT / "configs").glob(name), *(ROOT / "videogen").rglob(name)]


@pytest.mark.parametrize(
    "name", sorted({name for name in FILE.findall(PAGE) if not PLACEHOLDERS.search(name)})
)
def test_a_file_that_is_named_is_there(name):
    assert places(name)


@pytest.mark.parametrize(
    "sentence", [line for line in re.split(r"[.;]\s|\n\n|\n\d\. ", PAGE) if TABLE.search(line)]
)
def test_a_table_is_in_a_file_that_its_sentence_names(sentence):
    files = [place for name in FILE.findall(sentence) for place in places(PLACEHOLDERS.sub("*", name))]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    missing = [
        table
        for table in TABLE.findall(sentence)
        if files and not re.search(rf"^{table}\b", text, re.MULTILINE)
    ]
    assert missing == []
