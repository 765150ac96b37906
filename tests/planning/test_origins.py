"""Where values come from: every word of the plan is explained on its page."""

import re

from tests.conftest import ROOT
from videogen.planning.origins import Origin


def test_every_word_is_explained_in_the_manual():
    page = (ROOT / "docs/plan.md").read_text(encoding="utf-8")
    table = page.partition("| word | the value is from |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\w[\w ]*) \|", table, re.MULTILINE) == list(Origin)
