"""Job lists as people have them: tables, notes, JSON and YAML with lists, names, and lines from stdin."""

import io
import json
import re

import numpy as np
import pytest

from tests.commands import T2V


def planned(cli, file, *more):
    finished = cli(*T2V, "--jobs", file, *more, "--dry_run", "--json")
    assert finished.code == 0, finished.err
    return [json.loads(line) for line in finished.out.splitlines()]


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def asked(plans, *names):
    return [tuple(plan["request"][name] for name in names) for plan in plans]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'prompt,negative-prompt,cfg_scale\n"a cat, on a wall",dark,\n\n# a note\na dog,,3\n'),
        ("a.csv", '\ufeffprompt;negative_prompt;guidance_scale\r\n"a cat, on a wall";dark;\r\na dog;;3\r\n'),
        ("a.tsv", "# a note\nprompt\tneg_prompt\tguidance_scale\na cat, on a wall\tdark\t\na dog\t\t3\n"),
    ],
)
def test_tables_name_their_columns(cli, tmp_path, name, text):
    plans = planned(cli, written(tmp_path, name, text))
    (cat, dark, six), (dog, usual, three) = asked(plans, "prompt", "negative_prompt", "guidance_scale")
    assert (cat, dark, six) == ("a cat, on a wall", "dark", 6.0)
    assert (dog, three) == ("a dog", 3.0)
    assert len(usual) > 40  # the default: an empty cell is not given


def test_a_table_says_outputs_seeds_and_switches(cli, tmp_path):
    file = written(
        tmp_path,
        "a.csv",
        f'output,prompt,seed,teacache,shift\n{tmp_path}/one.npy,a cat,3,true,5\n{tmp_path}/two.npy,"a\ndog",'
        "4,no,\n",
    )
    plans = planned(cli, file, "--teacache_model", "T2V-1.3B")
    assert [plan["output"] for plan in plans] == [f"{tmp_path}/one.npy", f"{tmp_path}/two.npy"]
    assert asked(plans, "seed", "teacache", "prompt") == [(3, True, "a cat"), (4, False, "a\ndog")]
    finished = cli(*T2V, "--jobs", file, "--teacache_model", "T2V-1.3B")
    assert finished.code == 0, finished.err
    assert [path.name for path in finished.paths] == ["one.npy", "two.npy"]
    assert all(path.is_file() for path in finished.paths)


def test_notes_in_text_are_no_prompts(cli, tmp_path):
    file = written(tmp_path, "a.txt", "# first try\na cat\n\n  # second\na dog #2\n")
    assert asked(planned(cli, file), "prompt") == [("a cat",), ("a dog #2",)]
    assert "begin with # are comments (2)" in cli(*T2V, "--jobs", file, "--dry_run").err
    file = written(tmp_path, "a.jsonl", '# note\n{"prompt": "a cat"}\n')
    assert asked(planned(cli, file), "prompt") == [("a cat",)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"prompt": "x", "shift": [5, 8], "seed": [1, 2]}'),
        ("a.json", '[\n  {"prompt": "x",\n   "shift": [5, 8], "seed": [1, 2]}\n]'),
        ("a.json", '{\n  "prompt": "x", "shift": [5, 8], "seed": [1, 2]\n}'),
        ("a.yaml", "- prompt: x\n  shift: [5, 8]\n  seed: [1, 2]\n"),
        ("a.yml", "prompt: x\nshift: [5, 8]\nseed: [1, 2]\n"),
    ],
)
def test_lists_are_products(cli, tmp_path, name, text):
    plans = planned(cli, written(tmp_path, name, text), "--output", tmp_path / "{shift}_{seed}.npy")
    assert asked(plans, "shift", "seed") == [(5.0, 1), (5.0, 2), (8.0, 1), (8.0, 2)]
    names = ["5_1.npy", "5_2.npy", "8_1.npy", "8_2.npy"]
    assert [plan["output"] for plan in plans] == [str(tmp_path / name) for name in names]


def test_lists_that_are_values_stay_whole(cli, r2v, tmp_path):
    from tests.conftest import REFS

    robot, hills = str(REFS / "robot.png"), str(REFS / "hills.png")
    lines = [{"ref_imgs": [robot, hills]}, {"ref_imgs": [[robot], [robot, hills]], "prompt": ["a", "b"]}]
    file = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)))
    finished = cli(*r2v, "--jobs", file, "--dry_run", "--json")
    plans = [json.loads(line) for line in finished.out.splitlines()]
    names = [plan["request"]["ref_imgs"] for plan in plans]
    both = ["robot.png", "hills.png"]
    assert names == [both, ["robot.png"], ["robot.png"], both, both]
    assert [plan["request"]["prompt"] for plan in plans[1:]] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(("model", "scales"), [("tiny", [3.0, 4.0]), ("tiny:wan22-a14b", [[3.0, 4.0]])])
def test_two_guidance_scales_are_a_pair_where_there_are_two_experts(cli, tmp_path, model, scales):
    line = {"prompt": "x", "model_id": model, "guidance_scale": [3, 4]}
    plans = planned(cli, written(tmp_path, "a.jsonl", json.dumps(line)))
    assert [plan["request"]["guidance_scale"] for plan in plans] == scales


def test_a_list_in_yaml_may_hold_prompts(cli, tmp_path):
    file = written(tmp_path, "a.yaml", "- a cat\n- {prompt: a dog, num-frames: 9}\n")
    plans = planned(cli, file)
    assert asked(plans, "prompt") == [("a cat",), ("a dog",)]
    assert [plan["num_frames"] for plan in plans] == [5, 9]


def test_a_line_may_have_a_task_of_its_own(cli, tmp_path):
    lines = [{"prompt": "x", "task": "ti2v-5B"}, {"prompt": "x", "model_id": "Wan-AI/Wan2.2-T2V-A14B"}]
    file = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)))
    finished = cli("--jobs", file, "--dry_run", "--json")
    plans = [json.loads(line) for line in finished.out.splitlines()]
    assert [plan["model"]["id"] for plan in plans] == ["Wan-AI/Wan2.2-TI2V-5B", "Wan-AI/Wan2.2-T2V-A14B"]


def test_the_plan_of_a_list_shows_every_prompt(cli, tmp_path):
    out = cli(*T2V, "--jobs", written(tmp_path, "a.txt", "a cat\na dog\n"), "--dry_run").out
    assert re.findall(r"^prompt +(.*)$", out, re.MULTILINE) == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{prompt}_{seed}.mp4", "a-cat-on-a-wall_7.mp4"),
        ("{num_inference_steps}_{cfg-scale}_{sample_solver}.mp4", "1_2.5_unipc.mp4"),
        ("{width}x{height}_{num_frames}.mp4", "48x32_5.mp4"),
        ("{size}_{model_id}_{task_type}.mp4", "48x32_tiny-skyreels-v2-t2v_text_to_video.mp4"),
        ("{lora}_{teacache}_{boundary}.mp4", "none_off_none.mp4"),
        ("{index}/{prompt}", "1/a-cat-on-a-wall"),
    ],
)
def test_names_hold_values(cli, tmp_path, pattern, name):
    words = (*T2V, "--prompt", "A cat, on a/wall!", "--seed", 7, "--guidance_scale", 2.5)
    plan = json.loads(cli(*words, "--output", tmp_path / pattern, "--dry_run", "--json").out)
    assert plan["output"] == str(tmp_path / name)
    plan = json.loads(cli(*words, "--output_dir", tmp_path / "{prompt}", "--dry_run", "--json").out)
    assert plan["output"] == str(tmp_path / "a-cat-on-a-wall/1_7.mp4")


def test_long_prompts_make_short_names(cli, tmp_path):
    for prompt in ("a cat " * 100, "猫" * 300):
        words = (*T2V, "--prompt", prompt, "--output", tmp_path / "{prompt}.mp4", "--dry_run", "--json")
        name = json.loads(cli(*words).out)["output"].rpartition("/")[2]
        assert 20 <= len(name.encode()) <= 64


def test_several_videos_may_share_a_pattern_with_values(cli, tmp_path):
    file = written(tmp_path, "a.txt", "a cat\na dog\n")
    plans = planned(cli, file, "--output", tmp_path / "{prompt}.mp4")
    assert [plan["output"] for plan in plans] == [str(tmp_path / f"a-{name}.mp4") for name in ("cat", "dog")]
    finished = cli(*T2V, "--jobs", file, "--output", tmp_path / "{shift}.mp4", "--dry_run")
    assert finished.code == 2
    assert "several videos need {seed} or {index}" in finished.complaint


def test_drawn_seeds_are_small(cli):
    for _ in range(8):
        plan = json.loads(cli(*T2V, "--prompt", "x", "--dry_run", "--json").out)
        assert plan["request"]["seed"] < 2**31


BAD = {
    "no prompt column": ("a.csv", "seed,shift\n1,2\n", "line 1: has no column 'prompt' .it has seed"),
    "no header": ("a.csv", "a cat,a dog\na horse,a cow\n", "line 1 a cat,a dog: names no column; write"),
    "unknown column": ("a.csv", "prompt,steps\na,2\n", "line 1 steps: no such option; use --num_inf"),
    "column twice": ("a.csv", "prompt,shift,flow_shift\na,2,3\n", "line 1 shift: is there twice .--shift."),
    "nameless column": ("a.csv", "prompt,\na,2\n", "line 1: has a column without a name"),
    "ragged row": ("a.csv", "prompt,seed\na,1\nb, dark,2\n", "line 3: has 3 cells, and the first row has 2"),
    "short row": ("a.tsv", "prompt\tseed\na\t1\nb\n", "line 3: has 1 cell, and the first row has 2"),
    "open quote": ("a.csv", 'prompt,seed\n"a,1\n', "line 2: is no row .*; close every quote"),
    "header alone": ("a.csv", "prompt,seed\n", "a.csv: is empty"),
    "bad cell": ("a.csv", "prompt,seed\na,x\n", "a.csv line 2: --seed x: must be whole numbers"),
    "bad switch": ("a.csv", "prompt,teacache\na,maybe\n", "line 2: --teacache maybe: is a switch"),
    "about the run": ("a.csv", "prompt,overwrite\na,true\n", "line 2 overwrite: is about the whole run"),
    "comments alone": ("a.txt", "# a\n# b\n", "a.txt: is empty"),
    "too many": (
        "a.jsonl",
        json.dumps({"prompt": "x", "shift": list(range(1, 102)), "seed": list(range(100))}),
        "line 1: its lists make 10,100 videos; at most 10,000",
    ),
    "empty list": ("a.jsonl", '{"prompt": "x", "shift": []}', "line 1: --shift .*: must be"),
    "bad value in a list": ("a.jsonl", '{"prompt": "x", "shift": [5, "y"]}', "line 1: --shift y: must be"),
    "broken json": ("a.json", '[{"prompt": "x"}', "a.json: is not JSON"),
    "broken yaml": ("a.yaml", "- prompt: [x\n", "a.yaml: is not YAML at line 2; write a list"),
    "not videos": ("a.yaml", "- [1, 2]\n", "entry 1 .*: must be flags with values"),
    "unknown brace": (
        "a.jsonl",
        '{"prompt": "x", "output": "{promt}.mp4"}',
        "{promt} is not the name of an option; nearest {prompt}",
    ),
    "strange brace": (
        "a.jsonl",
        '{"prompt": "x", "output": "[1]{1}.mp4"}',
        r"\{1\} is not the name of an option; use {seed}, {index}",
    ),
    "output in output": ("a.jsonl", '{"prompt": "x", "output": "{output}.mp4"}', "{output} is not the name"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_lists_are_one_line_before_anything_runs(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file, text, message = BAD[name]
    written(tmp_path, file, text)
    finished = cli(*T2V, "--jobs", file)
    assert finished.code == 2
    assert re.search(message, finished.complaint), finished.complaint
    assert not finished.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [file]


def test_lines_from_stdin_are_made_as_they_come(cli, tmp_path, monkeypatch):
    """The second line is read when the first video is there; the model is loaded once."""
    from videogen.engine import load

    loads, original = [], load.load_pipeline
    monkeypatch.setattr(load, "load_pipeline", lambda *args: (loads.append(1), original(*args))[1])
    first, second = tmp_path / "1_5.npy", tmp_path / "2_6.npy"

    there = []

    class Feeder(io.StringIO):
        def readline(self, *args):
            there.append(first.is_file())
            return super().readline(*args)

    lines = [
        "a cat",
        "# a note",
        "",
        '{"prompt": "a dog", "seed": 6, "shift": 3}',
        '{"prompt": ',
        '{"seed": -1}',
    ]
    monkeypatch.setattr("sys.stdin", Feeder("\n".join(lines)))
    output = tmp_path / "{index}_{seed}.npy"
    finished = cli(*T2V, "--jobs", "-", "--output", output, "--seed", 5, "--json")
    records = [json.loads(line) for line in finished.out.splitlines()]
    assert [record.get("path") for record in records] == [str(first), str(second), None, None]
    assert "--jobs - line 5: is not JSON" in records[2]["error"]
    assert "--jobs - line 6: --seed -1" in records[3]["error"]
    assert finished.code == 1
    assert "2 of 4 videos failed" in finished.err
    assert there[:2] == [False, True]
    assert len(loads) == 1
    assert np.load(first).shape == np.load(second).shape
    alone = cli(*T2V, "--prompt", "a dog", "--seed", 6, "--shift", 3, "--output", tmp_path / "alone.npy")
    assert alone.code == 0
    assert np.array_equal(np.load(second), np.load(tmp_path / "alone.npy"))


def test_a_video_that_fails_does_not_stop_the_stream(cli, tmp_path, monkeypatch):
    from videogen.engine import session

    original = session.write

    def fail_once(plan, *args, **kwargs):
        if plan.seed == 1:
            raise RuntimeError("boom")
        return original(plan, *args, **kwargs)

    monkeypatch.setattr(session, "write", fail_once)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prompt": "a", "seed": [1, 2]}\n'))
    finished = cli(*T2V, "--jobs", "-", "--output_dir", tmp_path)
    assert finished.code == 1
    assert [path.name for path in finished.paths] == ["2_2.mp4"]
    assert "video 1 failed: RuntimeError: boom" in finished.err
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prompt": "a", "seed": [1, 2]}\n'))
    again = cli(*T2V, "--jobs", "-", "--output_dir", tmp_path, "--resume", "--dry_run", "--json")
    assert len(again.out.splitlines()) == 2


def test_a_table_from_stdin_is_read_row_by_row(cli, tmp_path, monkeypatch):
    text = """# a note
prompt,seed, shift
"a cat,
on a wall",5,3

a dog,6
a bird,minus,
# another
"fo"x,8,
a fish,7,
"""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    words = (*T2V, "--jobs", "-", "--output_dir", tmp_path / "made", "--json")
    finished = cli(*words, "--dry_run")
    assert finished.code == 1
    first, ragged, minus, fox, last = [json.loads(line) for line in finished.out.splitlines()]
    assert first["request"]["prompt"] == "a cat,\non a wall"
    assert (first["request"]["seed"], first["request"]["shift"]) == (5, 3)
    assert ragged["error"] == (
        "--jobs - line 6: has 2 cells, and the first row has 3; quote a cell that has commas or tabs in it"
    )
    assert minus["error"].startswith("--jobs - line 7: --seed minus")
    assert fox["error"].startswith("--jobs - line 9: is no row")
    assert last["request"]["prompt"] == "a fish"

    there = []

    class Feeder(io.StringIO):
        def readline(self, *args):
            there.append((tmp_path / "made/1_5.mp4").is_file())
            return super().readline(*args)

    monkeypatch.setattr("sys.stdin", Feeder("prompt,seed\na cat,5\na dog,6\n"))
    finished = cli(*words)
    assert finished.code == 0, finished.err
    assert len(finished.out.splitlines()) == 2
    assert there[:3] == [False, False, True]  # the columns, the first row, the second


@pytest.mark.parametrize(
    ("first", "prompts"),
    [
        ("a cat, a dog", ["a cat, a dog", "x"]),
        ("seed", ["seed", "x"]),
        ("prompt", ["x"]),
        ("Prompt, seed", ["Prompt, seed", "x"]),
    ],
)
def test_what_on_stdin_is_a_table(cli, tmp_path, monkeypatch, first, prompts):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{first}\nx\n"))
    finished = cli(*T2V, "--jobs", "-", "--output_dir", tmp_path, "--dry_run", "--json")
    assert [plan["request"]["prompt"] for plan in map(json.loads, finished.out.splitlines())] == prompts


@pytest.mark.parametrize("mode", ["run", "dry run"])
def test_columns_on_stdin_that_cannot_be_used(cli, tmp_path, monkeypatch, mode):
    monkeypatch.setattr("sys.stdin", io.StringIO("prompt,sed\nx,1\n"))
    finished = cli(
        *T2V, "--jobs", "-", "--output_dir", tmp_path, *(["--dry_run"] if mode == "dry run" else [])
    )
    assert finished.code == 2
    assert "--jobs - line 1 sed: no such option; nearest seed" in finished.complaint
    assert not finished.out
