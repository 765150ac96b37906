"""What a plan holds, and what an outline does not: it is a type of its own, with fewer fields."""

import dataclasses
import json
import re

import pytest

from tests.conftest import ROOT
from videogen.cli.parser import parse
from videogen.errors import InputError
from videogen.planning.option_rules import check_combination
from videogen.planning.plan import Outline, Plan
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy
from videogen.tasks.options import OPTIONS

ROBOT = ROOT / "ref_imgs/robot.png"
PUBLISHED = ("--task_type", "reference_to_video", "--prompt", "x", "--ref_imgs", ROBOT)


def plan_of(tmp_path, *words):
    (plan,) = make_plans([Item(values=parse([str(word) for word in words])[0])], OverwritePolicy(), tmp_path)
    return plan


def test_an_outline_has_fewer_fields(tmp_path):
    outline = plan_of(tmp_path, *PUBLISHED)
    assert type(outline) is Outline
    assert not hasattr(outline, "plan_hash")
    assert "weights" not in outline.identity
    assert {field.name for field in dataclasses.fields(Outline)} < {f.name for f in dataclasses.fields(Plan)}


def test_a_plan_is_whole(cli, r2v, tmp_path):
    assert cli(*r2v, "--output", tmp_path / "a.npy").code == 0  # the tiny model is here now
    plan = plan_of(tmp_path, *r2v)
    assert isinstance(plan, Plan)
    assert all(getattr(plan, field.name) is not None for field in dataclasses.fields(plan))
    recorded = json.loads((tmp_path / "a.json").read_text())
    assert plan.plan_hash == recorded["plan_hash"]
    again = plan.without_files()
    assert type(again) is Outline
    assert again.fetched(plan.checkpoint) == plan


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ((), r"about 44\.1 GB on the GPU; 40\.8 GB with --offload, 14\.2 GB with --low_vram"),
        (
            ("--offload",),
            r"about 40\.8 GB with --offload on the GPU; 44\.1 GB without --offload, 14\.2 GB with --low_vram",
        ),
        (
            ("--offload", "--low_vram"),
            r"about 14\.2 GB with --low_vram on the GPU; 44\.1 GB without --offload, 40\.8 GB with --offload",
        ),
    ],
)
def test_the_memory_of_what_was_chosen_comes_first(cli, words, chosen):
    finished = cli(*PUBLISHED, *words, "--dry_run")
    assert re.search(rf"^memory    {chosen}$", finished.out, re.MULTILINE), finished.out
    assert finished.err.count("--offload has no effect with --low_vram") == (len(words) == 2)


def test_facts_of_options_name_options():
    for option in OPTIONS.values():
        others = (*option.excludes, *option.instead_of, *option.useless_with)
        for other in (*others, *filter(None, [option.useless_without, option.needs and option.needs.option])):
            assert other in OPTIONS
            assert other != option.name


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS.values() if option.needs], ids=lambda o: o.name
)
def test_an_option_without_what_it_needs(option):
    with pytest.raises(InputError, match=rf"{option.flag}: .*; add --{option.needs.option}"):
        check_combination({option.name: True})
    check_combination({option.name: True, option.needs.option: True})
