"""Speeds that are kept after a run, and what the next plan makes of them."""

import json
import re

import pytest

from videogen.cli.parser import parse
from videogen.files import cache_root
from videogen.planning import measured_rates
from videogen.planning.measured_rates import expected_time, read_rates, store
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy

TINY = ("--task_type", "text_to_video", "--model_id", "tiny", "--prompt", "x", "--device", "cpu")
SMALL = ("--height", 32, "--width", 48, "--num_frames", 9, "--num_inference_steps", 4)
RECORD = {
    "device": "cpu",
    "seconds": {"load": 10.0, "denoise": 9.0, "total": 24.0},
    "step_seconds": [3.0, 2.0, 2.0, 2.0],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEOGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plan(tmp_path):
    """Return a function that plans a video of the tiny model."""

    def make(*words):
        values = parse([str(word) for word in (*TINY, *SMALL, *words)])[0]
        return make_plans([Item(values=values)], OverwritePolicy(), tmp_path)[0]

    return make


def seconds(plan):
    time = expected_time(plan)
    return time and (time.least, time.most)


def test_the_same_video_takes_as_long_again(plan):
    assert expected_time(plan()) is None
    store(plan(), RECORD, loaded=True)
    assert seconds(plan("--seed", 5)) == (24, 24)
    time = expected_time(plan())
    assert (time.rate.step, time.rate.load, time.rate.other) == (2.0, 10.0, 6.0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", time.rate.date)


def test_steps_and_forwards_are_scaled_exactly(plan):
    store(plan(), RECORD, loaded=True)
    assert seconds(plan("--num_inference_steps", 40)) == (96, 96)
    assert seconds(plan("--guidance_scale", 1)) == (20, 20)


def test_another_length_is_a_range_and_a_far_one_is_not_known(plan):
    store(plan(), RECORD, loaded=True)
    least, most = seconds(plan("--num_frames", 17))
    rest, tokens = 10 + 6 * 17 / 9, 5 / 3
    assert least == pytest.approx(rest + 8 * tokens)
    assert most == pytest.approx(rest + 8 * tokens**2)
    assert seconds(plan("--num_frames", 25)) is None


@pytest.mark.parametrize(
    "words",
    [("--dtype", "float32"), ("--low_vram",), ("--cache", "first_block"), ("--compile",)],
    ids=" ".join,
)
def test_other_options_have_speeds_of_their_own(plan, words):
    store(plan(), RECORD, loaded=True)
    assert seconds(plan(*words)) is None
    store(plan(*words), {**RECORD, "step_seconds": [1.0] * 4}, loaded=True)
    assert seconds(plan(*words)) == (24, 24)
    assert expected_time(plan(*words)).rate.step == 1
    assert expected_time(plan()).rate.step == 2


@pytest.mark.parametrize("words", [("--low_vram",), ("--cache", "first_block")], ids=" ".join)
def test_what_does_not_follow_the_tokens_is_not_scaled(plan, words):
    store(plan(*words), RECORD, loaded=True)
    assert seconds(plan(*words, "--num_frames", 13)) is None
    assert seconds(plan(*words, "--guidance_scale", 1)) is None


def test_the_nearest_and_the_newest_count(plan):
    store(plan("--num_frames", 17), {**RECORD, "step_seconds": [9.0] * 4}, loaded=True)
    store(plan(), RECORD, loaded=True)
    store(plan(), {**RECORD, "step_seconds": [1.0] * 4}, loaded=True)
    assert len(read_rates()) == 2
    assert expected_time(plan("--num_frames", 13)).rate.step == 1


def test_a_loaded_model_keeps_the_time_that_loading_took(plan):
    store(plan(), RECORD, loaded=True)
    store(plan(), {**RECORD, "seconds": {"load": 0.0, "total": 14.0}}, loaded=False)
    assert seconds(plan()) == (24, 24)


def test_a_resumed_video_is_not_measured(plan):
    store(plan(), {**RECORD, "step_seconds": [2.0] * 3}, loaded=True)
    assert read_rates() == []


def test_only_the_card_that_is_here_counts(plan, monkeypatch):
    store(plan(), {**RECORD, "device": "NVIDIA H200"}, loaded=True)
    assert seconds(plan()) is None
    monkeypatch.setattr(measured_rates, "is_on_cpu", lambda _device: False)
    assert seconds(plan()) == (24, 24)  # its driver does not say what card it is
    for gpus, known in (({"NVIDIA H200", "other"}, True), ({"NVIDIA L4"}, False)):
        monkeypatch.setattr(measured_rates, "gpu_names", lambda gpus=gpus: gpus)
        assert bool(seconds(plan())) == known


def test_the_file_does_not_grow_without_end(plan, monkeypatch):
    monkeypatch.setattr(measured_rates, "MAX_RATES", 3)
    for number in range(5):
        store(plan("--num_frames", 4 * number + 5), RECORD, loaded=True)
    assert [rate.pixels for rate in read_rates()] == [48 * 32 * frames for frames in (21, 17, 13)]


def test_no_paths_are_kept(plan, tmp_path):
    store(plan(), RECORD, loaded=True)
    assert str(tmp_path) not in (cache_root() / "measured_rates.json").read_text()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"\xff\xfe", b"[]", b'{"rates": 5}', b'{"rates": [5, null, {}]}', b"[" * 5000),
        b"{" + b" " * 1_100_000 + b"}",
    ],
    ids=range(8),
)
def test_a_file_that_cannot_be_read_is_ignored_and_replaced(plan, content):
    file = cache_root() / "measured_rates.json"
    file.parent.mkdir()
    file.write_bytes(content)
    assert seconds(plan()) is None
    store(plan(), RECORD, loaded=True)
    assert seconds(plan()) == (24, 24)


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"step": float("nan")},
            {"step": -1},
            {"step": "2"},
            {"load": 1e300},
            {"tokens": 0},
            {"pixels": 1.5},
        ),
        *({"settings": []}, {"date": 5}, {"another": 1}),
    ],
    ids=str,
)
def test_a_row_of_another_kind_is_ignored(plan, change):
    store(plan(), RECORD, loaded=True)
    file = cache_root() / "measured_rates.json"
    rows = json.loads(file.read_text())["rates"]
    file.write_text(json.dumps({"rates": [{**rows[0], **change}]}))
    assert read_rates() == []
    file.write_text(json.dumps({"rates": [{**rows[0], **change}, rows[0]]}))
    assert len(read_rates()) == 1


def test_a_cache_that_cannot_be_written_fails_no_run(plan, tmp_path):
    (tmp_path / "cache").write_text("a file")
    store(plan(), RECORD, loaded=True)
    assert read_rates() == []


def test_a_run_is_measured_for_the_next_plan(cli, tmp_path):
    words = [*TINY, *SMALL]
    made = cli(*words, "--output_dir", tmp_path, "--seed", "1,2")
    assert made.code == 0
    records = [json.loads(path.with_suffix(".json").read_text()) for path in made.paths]
    assert [len(record["step_seconds"]) for record in records] == [4, 4]
    for path in made.paths:
        (line,) = (line for line in made.err.splitlines() if line.startswith(f"{path}: "))
        assert re.search(r": [\d.]+ s \(load .*denoise .*\); [\d.]+ s/step; peak .* of RAM$", line), line
    (rate,) = read_rates()
    assert rate.step == pytest.approx(sum(records[1]["step_seconds"][1:]) / 3, rel=0.01)
    assert rate.load == records[0]["seconds"]["load"]

    out = cli(*words, "--seed", "1,2", "--dry_run").out
    said = re.search(
        r"^time +about ([\d.]+) s: ([\d.]+) s a step, measured on (\S+) at (.*) on cpu, ", out, re.M
    )
    assert said is not None, out
    assert said.group(3, 4) == (rate.date, "48x32, 9 frames")
    assert re.search(r"^total +2 videos, about [\d.]+ s$", out, re.MULTILINE)
    plan = json.loads(cli(*words, "--dry_run", "--json").out)
    assert plan["expected"]["rate"]["step"] == rate.step
    assert plan["expected"]["least"] == plan["expected"]["most"]


def test_quiet_says_no_closing_line(cli, tmp_path):
    made = cli(*TINY, *SMALL, "--output", tmp_path / "a.npy", "--quiet")
    assert (made.code, made.err) == (0, "")


def test_scaled_times_are_a_range_in_words(cli, plan):
    store(plan(), {**RECORD, "step_seconds": [60.0] * 4}, loaded=True)
    out = cli(*TINY, *SMALL, "--num_frames", 17, "--dry_run").out
    assert "about 7 min to 11 min: 60 s a step, measured on " in out
