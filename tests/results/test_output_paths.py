"""Names of results: which they are, when they are refused, and what is said."""

import errno
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from videogen.errors import InputError
from videogen.files import OutputError
from videogen.results import output_paths
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import (
    OutputPaths,
    OverwritePolicy,
    check_pattern,
    choose_output_paths,
    earlier_record,
    earlier_seed,
    kind_of,
    real_path,
    refuse_if_locked,
    reserve,
)
from videogen.tasks.options import OPTIONS

FAIL, OVERWRITE, RESUME = OverwritePolicy(), OverwritePolicy(overwrite=True), OverwritePolicy(resume=True)

KINDS = "must be .mp4, .mov, .webm, .mkv, .gif, .npy, .png or a folder"


@dataclass
class Options:
    output: str | None = None
    output_dir: str | None = None
    save_latents: str | None = None
    save_last_frame: str | None = None
    contact_sheet: int | None = None
    codec: str | None = None


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def choose(**options):
    return choose_output_paths(Options(**options), task="task", index=3, seed=7, stamp="now")


def keep(options, policy=FAIL, *, taken=(), sources=(), locks=None, seed=7, label=""):
    chosen = choose_output_paths(options, task="task", index=3, seed=seed, stamp="now")
    return reserve(chosen, options, dict.fromkeys(taken, ""), policy, sources, label=label, locks=locks)


def complaint(ask, *args, **values):
    with pytest.raises(InputError) as caught:
        ask(*args, **values)
    return str(caught.value)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *(
            ("a.mp4", "mp4"),
            ("b/a.GIF", "gif"),
            ("a.b.npy", "npy"),
            ("a", "png"),
            ("a.b/", "png"),
            ("a.mp4/", "png"),
        ),
        *(
            ("a.avi", None),
            (".mp4", None),
            ("b/.NPY", None),
            (".gif", None),
            ("a.png", "still"),
            (".hidden", "png"),
        ),
    ],
)
def test_kinds(path, kind):
    assert kind_of(path) == kind


def test_files_of_a_result():
    plain = OutputPaths(path=Path("b/a.c.mp4"), kind="mp4")
    assert (plain.name, plain.sidecar, plain.resume_folder) == (
        "a.c",
        Path("b/a.c.json"),
        Path("b/a.c.parts"),
    )
    assert plain.files == {"video": Path("b/a.c.mp4")}
    assert plain.paths == [Path("b/a.c.mp4"), Path("b/a.c.json")]
    assert plain.may_replace is False
    frames = OutputPaths(path=Path("b/a.c"), kind="png", latents=Path("l"), last_frame=Path("f"))
    assert (frames.name, frames.sidecar, frames.resume_folder) == (
        "a.c",
        Path("b/a.c.json"),
        Path("b/a.c.parts"),
    )
    assert frames.files == {"video": Path("b/a.c"), "latents": Path("l"), "last_frame": Path("f")}
    assert frames.paths == [Path("b/a.c"), Path("l"), Path("f"), Path("b/a.c.json")]


def test_chosen_names(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert choose() == OutputPaths(path=Path("result/task/7_now.mp4"), kind="mp4")
    assert choose(output_dir="~/out").path == Path("/home/me/out/3_7.mp4")
    made = choose(
        output="~/{index}/{seed}.gif", save_latents="~/l{seed}.safetensors", save_last_frame="~/{index}.png"
    )
    assert made == OutputPaths(
        path=Path("/home/me/3/7.gif"),
        kind="gif",
        latents=Path("/home/me/l7.safetensors"),
        last_frame=Path("/home/me/3.png"),
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output": "b/a.x.avi"}, f"--output b/a.x.avi: {KINDS}; try b/a.mp4"),
        ({"output": ".mp4"}, f"--output .mp4: {KINDS}; try video.mp4"),
        ({"save_latents": "b/a.pt"}, "--save_latents b/a.pt: must end in .safetensors; try a.safetensors"),
        ({"save_last_frame": "b/a.jpg"}, "--save_last_frame b/a.jpg: must end in .png; try a.png"),
    ],
)
def test_suffixes(options, said):
    assert complaint(choose, **options) == said


@pytest.mark.parametrize("name", ["output", "save_latents", "save_last_frame"])
def test_several_videos_need_several_names(name):
    assert OPTIONS[name].names_result
    said = complaint(check_pattern, Options(**{name: "a"}), [name], shared={"a"}, fixed=None)
    assert said == f"--{name} a: several videos need {{seed}} or {{index}} in it; or give --output_dir"
    for pattern in ("{seed}", "a{index}"):
        check_pattern(Options(**{name: pattern}), [name], shared={pattern}, fixed=None)
    check_pattern(Options(**{name: "a"}), [name], shared=(), fixed=None)


def test_resume_needs_a_name():
    said = complaint(check_pattern, Options(save_latents="a"), [], shared=(), fixed="--resume")
    assert said == "--resume: needs names that stay the same; give --output or --output_dir"
    for options in (Options(output="a"), Options(output_dir="a")):
        check_pattern(options, [], shared=(), fixed="--resume")


def test_default_names_are_the_next_free_ones(inside):
    folder = Path("result/task")
    assert keep(Options()).path == folder / "7_now.mp4"
    assert not folder.exists()
    folder.mkdir(parents=True)
    (folder / "7_now.json").write_text("")
    (folder / "7_now_2.mp4").symlink_to("nowhere")
    third = folder / "7_now_3.mp4"
    assert keep(Options()).path == third
    with OutputLocks() as ours, OutputLocks() as others:
        assert others.acquire(folder, "7_now_4") is None
        made = keep(Options(), taken={real_path(third)}, locks=ours)
        assert made.path == folder / "7_now_5.mp4"
        assert made.may_replace is False
        assert others.acquire(folder, "7_now_5") is not None
        made = keep(Options(), taken={real_path(folder / "7_now_3.json")})
        assert made.path == folder / "7_now_4.mp4"


def test_default_names_in_a_folder_that_cannot_be(inside):
    (inside / "result").write_text("")
    with OutputLocks() as locks:
        said = complaint(keep, Options(), locks=locks)
    assert said == f"--output_dir result/task: {inside}/result is a file; choose another folder"


@pytest.mark.parametrize(("policy", "may"), [(FAIL, False), (OVERWRITE, True), (RESUME, True)])
def test_what_may_be_replaced(inside, policy, may):
    assert keep(Options(output="a.mp4"), policy).may_replace is may


def test_names_have_a_limit(inside):
    longest = "é" * 97 + "e.npy"  # 199 bytes; its record's name has one more
    keep(Options(output=longest))
    said = complaint(keep, Options(output=f"e{longest}"))
    assert said.endswith("e.json: names may have 200 bytes; choose a shorter one") or "…" in said
    assert "names may have 200 bytes; choose a shorter one" in complaint(keep, Options(output="x" * 201))
    long = "x" * 200
    assert complaint(keep, Options(output_dir="b", save_latents=f"{long}.safetensors")).startswith(
        "--save_latents x"
    )
    assert complaint(keep, Options(save_last_frame=f"{long}.png")).startswith("--save_last_frame x")


def test_inputs_are_no_outputs(inside):
    source = inside / "a.mp4"
    said = complaint(keep, Options(output="a.mp4"), OVERWRITE, sources=[source])
    assert said == "--output a.mp4: is an input of this very video; choose another name"
    assert keep(Options(output=str(inside / "b.mp4")), sources=[source]).path == inside / "b.mp4"
    assert "input of this very video" in complaint(keep, Options(output=str(source)), sources=[Path("a.mp4")])


def test_two_videos_of_a_run_have_two_names(inside):
    said = complaint(keep, Options(output="x/../a.mp4"), taken={real_path(Path("a.mp4"))})
    assert "two videos would get this name" in said
    said = complaint(keep, Options(output="a.mp4"), taken={real_path(Path("a.mp4"))})
    assert said == "--output a.mp4: two videos would get this name; use {seed} and {index} in it"
    said = complaint(keep, Options(output_dir="b"), taken={real_path(Path("b/3_7.mp4"))})
    assert said.startswith("--output_dir b/3_7.mp4: two videos")


def test_what_exists_is_kept(inside):
    (inside / "a.mp4").write_text("")
    options = Options(output="a.mp4")
    said = "--output a.mp4: exists already; add --overwrite, or choose another name"
    assert complaint(keep, options) == said
    assert keep(options, OVERWRITE).path == Path("a.mp4")
    (inside / "a.mp4").unlink()
    (inside / "a.mp4").symlink_to("nowhere")
    assert complaint(keep, options) == said
    (inside / "a.mp4").unlink()
    (inside / "a.json").write_text("")
    assert complaint(keep, options) == said.replace("exists", "its record a.json exists")
    keep(options, OVERWRITE)
    (inside / "l.safetensors").write_text("")
    options = Options(output="b.mp4", save_latents="l.safetensors")
    assert complaint(keep, options) == said.replace("--output a.mp4", "--save_latents l.safetensors")


def test_resume_replaces_only_results(inside):
    options = Options(output="a.npy", save_latents="l.safetensors")
    (inside / "l.safetensors").write_text("theirs, perhaps, but named")
    keep(options, RESUME)
    (inside / "a.npy").write_text("theirs")
    said = "--output a.npy: is no earlier result of videogen; move it, or choose another name"
    assert complaint(keep, options, RESUME) == said
    keep(options, OVERWRITE)
    (inside / "a.json").write_text('{"schema": 1, "seed": 1}')
    assert keep(options, RESUME).path == Path("a.npy")
    (inside / "a.json").write_text("theirs")
    assert complaint(keep, options, RESUME) == said
    assert complaint(keep, Options(output_dir="a.json"), RESUME).startswith("--output_dir")


def test_folders_with_other_files_are_kept(inside):
    folder = inside / "a"
    folder.mkdir()
    (folder / "000001.png").write_text("")
    assert keep(Options(output="a"), OVERWRITE).path == Path("a")
    for name in ("00001.png", "000001.jpg", "x000001.png"):
        (folder / name).write_text("")
        said = complaint(keep, Options(output="a"), OVERWRITE)
        assert said == "--output a: is a folder with other files in it; choose another name"
        (folder / name).unlink()
    (inside / "b.mp4").mkdir()
    assert "folder with other files" in complaint(keep, Options(output="b.mp4"), OVERWRITE)
    (inside / "c").write_text("")
    said = complaint(keep, Options(output="c"), OVERWRITE)
    assert said == "--output c: is a file; without a suffix a folder is meant; try c.mp4"
    (inside / "d.json").mkdir()
    assert "folder with other files" in complaint(keep, Options(output="d"), OVERWRITE)


def test_locks_of_a_result(inside):
    options = Options(output="a.mp4", save_latents="b/l.safetensors", save_last_frame="f.png")
    with OutputLocks() as locks:
        keep(options, locks=locks)
        assert {path.name for path in locks.held} == {".a.lock", ".l.lock", ".f.lock"}
        for name, given in (
            ("--output", {"output": "a.npy"}),
            ("--save_latents", {"output": "z.mp4", "save_latents": "b/l.safetensors"}),
            ("--save_last_frame", {"output": "z.mp4", "save_last_frame": "f.png"}),
        ):
            with OutputLocks() as others:
                said = complaint(keep, Options(**given), locks=others)
                assert said.startswith(f"{name} {given[name[2:]]}: another run is writing it (")
                assert said.endswith("); wait until it ends, or choose another name")
    with OutputLocks() as locks:
        keep(Options(output_dir="c"), locks=locks)
        with OutputLocks() as others:
            assert complaint(keep, Options(output_dir="c"), locks=others).startswith(
                "--output_dir c/3_7.mp4: another"
            )
    keep(options)
    assert names(inside) == []


def test_a_lock_that_cannot_be_written(inside, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(OutputLocks, "acquire", full)
    with pytest.raises(OutputError, match=r"a\.mp4: No space left on device; free some"):
        refuse_if_locked(OutputLocks(), "--output", Path("a.mp4"), "a")


def record(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "seed": seed}))


def test_records_of_earlier_results(inside, monkeypatch):
    outputs = OutputPaths(path=Path("a.mp4"), kind="mp4")
    assert earlier_record(outputs) is None
    record(Path("a.parts/state.json"), 3)
    assert earlier_record(outputs)["seed"] == 3
    own = {Path("a.mp4"): {"schema": 1, "seed": 2}}
    read = output_paths.metadata.read_record
    monkeypatch.setattr(output_paths.metadata, "read_record", lambda path: own.get(path) or read(path))
    assert earlier_record(outputs)["seed"] == 2
    own[Path("a.npy")] = {"schema": 1, "seed": 9}
    assert earlier_record(replace(outputs, path=Path("a.npy"), kind="npy"))["seed"] == 3
    record(Path("a.json"), 1)
    assert earlier_record(outputs)["seed"] == 1
    Path("a.json").write_text("damaged")
    assert earlier_record(outputs) is None


def test_seeds_that_were_drawn(inside):
    options = Options(output="b[1]/{seed}_{index}.npy")
    assert earlier_seed(options, "task", 3) is None
    record(Path("b[1]/21_3.parts/state.json"), 21)
    assert earlier_seed(options, "task", 3) == 21
    record(Path("b[1]/22_2.json"), 22)
    (inside / "b[1]/22_2.npy").write_text("")
    assert earlier_seed(options, "task", 3) == 21
    record(Path("b[1]/23_3.json"), 23)
    assert earlier_seed(options, "task", 3) == 21
    (inside / "b[1]/23_3.npy").write_text("")
    (inside / "b[1]/20_3.npy").write_text("somebody else's")
    assert earlier_seed(options, "task", 3) == 23
    assert earlier_seed(Options(output_dir="b[1]"), "task", 3) is None
    record(Path("b[1]/3_5.parts/state.json"), 5)
    assert earlier_seed(Options(output_dir="b[1]"), "task", 3) == 5


@pytest.mark.parametrize("damaged", [{}, {"seed": "x"}, {"seed": None}])
def test_records_without_a_seed_are_passed_over(inside, damaged):
    Path("1.parts").mkdir()
    for path in (Path("1.json"), Path("1.parts/state.json")):
        path.write_text(json.dumps({"schema": 1} | damaged))
    Path("1.npy").write_text("")
    assert earlier_seed(Options(output="{seed}.npy"), "task", 1) is None
