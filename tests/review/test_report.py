"""--report: the structure of the page, data that stays data, its size, the table, and a real browser."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.review.results import write_result
from videogen.errors import InputError
from videogen.review import report
from videogen.review.found import find_all

HOSTILE = (
    "<script>document.title='taken'</script>",
    "</script><img src=x onerror=\"document.title='taken'\">",
    "\" onmouseover=\"document.title='taken'",
    "{{ 7 * 7 }} ' & \u2028",
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Page(HTMLParser):
    """The elements of a page: (tag, attributes), the text of cards, and of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.prompts = [], [], []
        self.open = [("", {})]
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append((tag, dict(attrs)))
        if tag == "p" and dict(attrs).get("class") == "prompt":
            self.prompts.append("")
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.open[-1][0] == "script":
            self.scripts[-1] += data
        elif self.open[-1][1].get("class") == "prompt":
            self.prompts[-1] += data

    def handle_endtag(self, tag):
        while self.open.pop()[0] != tag:
            pass

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def folder(tmp_path):
    """One result of each way to show it."""
    for number, prompt in enumerate(HOSTILE):
        day = {"created": f"2026-01-0{9 - number}T00:00:00+0000"}
        asked = {"prompt": prompt, "seed": number, "shift": 3.0 + number % 2}
        write_result(tmp_path, f"in/{number} &<b>#.mp4", request=asked, record=day)
    for name in ("a.gif", "b.npy", "frames"):
        write_result(tmp_path, name, record={"created": "2025-01-01T00:00:00+0000"})
    (tmp_path / "a.sheet.png").write_bytes(b"")
    return tmp_path


def rendered(folder):
    return report.render(find_all("--report", str(folder)), folder, title="<i>all</i>")


def test_the_page(folder):
    page = Page(rendered(folder))
    videos, images = page.all("video"), page.all("img")
    assert [video["src"] for video in videos] == [f"in/{number}%20%26%3Cb%3E%23.mp4" for number in range(4)]
    for video in videos:
        assert (folder / "in" / "0 &<b>#.mp4").exists()
        assert video["preload"] == "none"
        assert video["poster"].startswith("data:image/jpeg;base64,")
        assert (video["width"], video["height"]) == ("64", "48")
    assert [image["src"][:15] for image in images] == ["a.gif", "data:image/jpeg", "data:image/jpeg"]
    assert [image.get("loading") for image in images] == ["lazy", None, None]
    assert len(page.all("article")) == 7
    assert page.prompts[:4] == [*HOSTILE]
    assert "a.sheet.png" in [link.get("href") for link in page.all("a")]
    assert {"--seed", "--prompt", "--shift"} < {option.get("value") for option in page.all("option")}
    assert "--model_id" not in {option.get("value") for option in page.all("option")}, "all have the same"


def test_the_page_needs_nothing_else(folder):
    """No network, nothing outside of its folder."""
    text = rendered(folder)
    page = Page(text)
    assert not re.search(r"https?://|@import|url\(", text)
    assert not page.all("link")
    assert all("src" not in script for script in page.all("script"))
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert not attributes.get(name, "").startswith(("/", "..", "file:"))


def test_prompts_and_names_are_data(folder):
    page = Page(rendered(folder))
    assert len(page.scripts) == 2
    data = json.loads(page.scripts[0])
    assert [result["options"]["prompt"] for result in data["results"][:4]] == [*HOSTILE]
    assert not page.all("b")
    assert not page.all("i")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_a_name_may_be_no_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.npy")
    write_result(tmp_path, name, record={"output": "plain"})
    (record,) = tmp_path.glob("*.json")
    record.write_text(record.read_text().replace('"output": "plain"', '"output": null'))
    results = find_all("--report", str(tmp_path))
    text = report.render(results, tmp_path, title="")
    assert "caf%E9.npy" in text
    assert "caf\ufffd.npy" in text
    assert "caf\ufffd.npy" in report.to_csv(results, tmp_path)


def test_a_video_that_is_damaged_has_no_picture(folder, caplog):
    (folder / "in" / "0 &<b>#.mp4").write_bytes(b"x" * 100)
    page = Page(rendered(folder))
    assert "poster" not in page.all("video")[0]
    assert "0 &<b>#.mp4" in caplog.text


def test_many_results_stay_small(tmp_path, monkeypatch):
    """Pictures share what there is room for."""
    monkeypatch.setattr(report, "POSTERS_BYTES", 40_000)
    noise = np.random.default_rng(0).integers(0, 256, (1, 480, 832, 3), np.uint8)
    for number in range(20):
        write_result(tmp_path, f"{number}.npy", frames=noise)
    results = find_all("--report", str(tmp_path))
    posters = sum(len(image["src"]) for image in Page(report.render(results, tmp_path, title="")).all("img"))
    assert posters < 40_000 * 1.4


def test_the_table(folder):
    write_result(folder, "z.npy", request={"prompt": "=1+1", "lora": ["a:-1"], "negative_prompt": "-1"})
    rows = list(csv.DictReader(io.StringIO(report.to_csv(find_all("--report", str(folder)), folder))))
    by_file = {row["file"]: row for row in rows}
    row = by_file["in/1 &<b>#.mp4"]
    assert row["prompt"] == HOSTILE[1]
    assert (row["seed"], row["shift"], row["num_frames"], row["fps"]) == ("1", "4", "5", "16")
    assert (row["seconds"], row["seconds_per_step"], row["ram_bytes"]) == ("12.5", "0.5", "1500000000")
    assert row["gpu_bytes"] == row["lora"] == ""
    assert by_file["z.npy"]["prompt"] == "'=1+1", "no spreadsheet runs it"
    assert by_file["z.npy"]["negative_prompt"] == "-1"


def test_an_earlier_report_is_replaced_and_nothing_else(folder):
    page = folder / "report.html"
    for _ in range(2):
        report.check_report("--report", page, overwrite=False)
        report.write_report(find_all("--report", str(folder)), page, title="")
    (folder / "results.csv").write_text("mine")
    with pytest.raises(InputError, match=r"results.csv: exists, and is no earlier report; add --overwrite"):
        report.check_report("--report", page, overwrite=False)
    report.check_report("--report", page, overwrite=True)


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_in_a_browser(folder, tmp_path_factory):
    """Filter, group, select two and compare them; prompts run nothing."""
    script = """
      const told = [byId("count").textContent];
      const set = (id, value) => {
        byId(id).value = value;
        byId(id).dispatchEvent(new Event("input", { bubbles: true }));
      };
      const names = () => [...document.querySelectorAll(".card h3")].map((each) => each.textContent);
      set("sort", "--seed"); byId("descending").click(); told.push(names());
      set("filter", "7 * 7"); told.push(names(), byId("count").textContent);
      set("filter", "--shift=3 in/"); told.push(names());
      set("filter", ""); set("group", "--shift");
      told.push([...document.querySelectorAll("h2")].map((each) => each.textContent));
      for (const number of [0, 2, 1]) byId(`r${number}`).querySelector(".pick").click();
      told.push(document.querySelectorAll(".card.on").length, byId("picked").textContent);
      byId("compare").click();
      const cells = (row) => [...row.children].map((cell) => cell.textContent);
      told.push([...byId("differences").children].map(cells));
      told.push(byId("dialog").open, byId("both").querySelectorAll("video").length, document.title);
      const box = document.createElement("pre"); box.id = "told"; box.textContent = JSON.stringify(told);
      document.body.append(box);
    """
    page = folder / "page.html"
    page.write_text(rendered(folder).replace("</body>", f"<script>{script}</script></body>"))
    profile = tmp_path_factory.mktemp("profile")
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    (told,) = re.findall(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        told = told.replace(entity, letter)
    (
        count,
        by_seed,
        filtered,
        filtered_count,
        of_shift,
        groups,
        chosen,
        picked,
        rows,
        is_open,
        playing,
        title,
    ) = json.loads(told)
    assert (count, filtered_count) == ("7 results", "1 of 7 results")
    assert by_seed[0] == "in/0 &<b>#.mp4"
    assert by_seed[-2:] == ["in/2 &<b>#.mp4", "in/3 &<b>#.mp4"]
    assert filtered == ["in/3 &<b>#.mp4"]
    assert of_shift == ["in/0 &<b>#.mp4", "in/2 &<b>#.mp4"]
    assert groups == ["--shift 3 (2)", "--shift 4 (2)", "--shift 8 (3)"]
    assert (chosen, picked) == (2, "in/2 &<b>#.mp4 and in/1 &<b>#.mp4")
    assert rows == [
        ["--seed", "2", "1"], ["--prompt", HOSTILE[2], HOSTILE[1]], ["--shift", "3", "4"],
    ]  # fmt: skip
    assert (is_open, playing, title) == (True, 2, "<i>all</i>")
