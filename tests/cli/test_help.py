"""The help texts: two screens for everybody, what a task requires first, everything on demand."""

import re

import pytest

from tests.cli.test_chain import continuous
from videogen.cli.help import ALL, help_text
from videogen.tasks.options import OPTIONS
from videogen.tasks.table import TASKS, users_of

SCREENS = 90  # lines of two screens
ENTRY = re.compile(r"^  (--\w+)", re.MULTILINE)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def shown(text):
    """Return the flags that have an entry of their own, in their order."""
    return [flag for flag in ENTRY.findall(text.partition("\nmore:")[0]) if flag[2:] in OPTIONS]


def test_the_first_page_has_two_screens_ten_tasks_and_twelve_flags(cli):
    text = cli("--help").out
    lines = text.splitlines()
    assert len(lines) <= SCREENS
    assert max(map(len, lines)) <= 100
    for name, task in TASKS.items():
        (row,) = (line for line in lines if line.split()[:1] == [name])
        assert row.split()[1:] == [f"--{needed}" for needed in task.required()]
    assert len(shown(text)) == 12
    assert shown(text) == [f"--{name}" for name, option in OPTIONS.items() if option.usual]
    for way in ("--task_type TASK --help", "--help all", "docs/", "exit codes: 0 done"):
        assert way in text


def test_everything_is_everything(cli):
    text = cli("--help", "all").out
    ours = {name for name, option in OPTIONS.items() if option.about_run or users_of(name)}
    assert {f"--{name}" for name in ours} == set(shown(text))
    assert "[not talking_avatar]" in text
    assert cli("--help=all").out == text
    assert cli("-h", "all").out == text
    assert cli("-help", "all").out == text


@pytest.mark.parametrize("name", TASKS)
def test_help_of_a_task_is_about_this_task(cli, name):
    text = cli("--task_type", name, "--help").out
    assert cli("--help", name).out == text
    assert not [other for other in TASKS if re.search(rf"\b{other}\b", text) and other not in name]
    required = TASKS[name].required()
    head = shown(text)[: len(required)]
    assert head == [f"--{needed}" for needed in required]
    used = {name_ for name_, option in OPTIONS.items() if option.about_run or name in users_of(name_)}
    left_out = {"caption_only"} if "vlm_device" not in used else set()
    assert set(shown(text)) == {f"--{name_}" for name_ in used - left_out}
    places = [text.index(f"\n{title}:") for title in ("required", "used most", "output", "about")]
    assert places == sorted(places)
    assert text.startswith(f"usage: generate_video.py --task_type {name} --")


def test_texts_that_a_task_has_of_its_own():
    assert "frames of a clip" in help_text("talking_avatar")
    assert "frames of a clip" not in help_text(ALL)
    assert "the expert of low noise" in " ".join(help_text("text_to_video").split())  # of one of its families
    assert "(default 42)" in " ".join(help_text("talking_avatar").split())
    assert "supported sizes (default 1280*720)" in " ".join(help_text("v2v-14B").split())
    assert "…)" in help_text("talking_avatar")  # a long negative prompt


def test_defaults_of_the_model_that_is_named(cli):
    def text(*words):
        return " ".join(cli("--task_type", "text_to_video", *words, "--help").out.split())

    assert "denoising steps (default 30)" in text()
    named = text("--model_id", "Wan-AI/Wan2.2-T2V-A14B")
    assert "denoising steps (default 40)" in named
    assert "'tiny' (default Wan-AI/Wan2.2-T2V-A14B)" in named
    assert "Defaults are those of Wan-AI/Wan2.2-T2V-A14B" in named
    assert text("--model_id", "somebody/else") == text()
    longer = cli("--help", "diffusion_forcing", "--model_id", "Skywork/SkyReels-V2-DF-14B-720P").out
    assert "made of several (default 121)" in " ".join(longer.split())


def test_a_topic_that_is_none(cli):
    refused = cli("--help", "texttovideo")
    assert refused.code == 2
    assert "--help texttovideo: must be one of" in refused.complaint
    assert "nearest text_to_video" in refused.complaint
    assert "--boundary" in cli("--help", "t2v-A14B").out  # a published name


def test_words_that_are_meant_as_flags(cli):
    assert cli("help").complaint == "error: help: not a flag; --help"
    assert cli("text_to_video").complaint == "error: text_to_video: not a flag; --task_type text_to_video"


def test_the_installed_commands_call_themselves_by_their_names(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/usr/bin/videogen"])
    for topic in (None, ALL, "text_to_video"):
        assert help_text(topic).startswith("usage: videogen --task_type ")
    monkeypatch.setattr("sys.argv", ["/usr/bin/videogen-continuous"])
    assert continuous(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: videogen-continuous --video")
    assert ".py" not in text


def test_a_chain(capsys):
    assert continuous(["--help"]) == 0
    first = capsys.readouterr().out
    assert len(first.splitlines()) <= SCREENS
    assert {"--input_video", "--model_id", "--num_videos", "--no_vlm", "--concat", "--output_dir"} <= {
        *shown(first)
    }
    assert continuous(["--help", "all"]) == 0
    text = capsys.readouterr().out
    assert shown(text)[:2] == ["--input_video", "--model_id"]
    for strange in ("--captioner", "SkyCaptioner", "latents", "DF", "--jobs", "--input_image"):
        assert strange not in text
    assert {"--compile", "--vlm_path", "--custom_prompt"} <= {*shown(text)}
    assert continuous(["--task_type", "v2v-5B", "--help"]) == 0
    assert "(default 24)" in capsys.readouterr().out  # its frames per second
    assert continuous(["--task_type", "text_to_video", "--help"]) == 2
    assert "--help text_to_video: makes no chains; nearest v2v-14B" in capsys.readouterr().err
