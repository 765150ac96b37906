"""Publishing: what a record says, the order of names, and what a killed run left undone."""

import hashlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from videogen import files
from videogen.results import publishing
from videogen.results.digest import digest, digest_if_readable
from videogen.results.output_paths import OutputPaths
from videogen.results.publishing import finish_interrupted, is_whole, publish


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def outputs_in(folder, **more):
    return OutputPaths(
        path=folder / "a.npy", kind="npy", latents=folder / "l.x", last_frame=folder / "f.x", **more
    )


@pytest.fixture
def complete(tmp_path):
    """Complete files under temporary names."""
    made = {}
    for role in ("video", "latents", "last_frame"):
        made[role] = tmp_path / f".{role}"
        made[role].write_text(f"new {role}")
    return made


@pytest.fixture
def order(monkeypatch):
    """Names in the order in which they appear."""
    seen = []
    for name in ("replace", "rename", "hardlink_to"):
        original = getattr(Path, name)

        def noted(path, target, original=original, name=name):
            seen.append((path if name == "hardlink_to" else Path(target)).name)
            return original(path, target)

        monkeypatch.setattr(Path, name, noted)
    return seen


def test_digests(tmp_path):
    (tmp_path / "b").mkdir()
    for name, text in (("2", "two"), ("1", "one")):
        (tmp_path / "b" / name).write_text(text)
    (tmp_path / "a").write_text("x" * 3_000_000)
    assert digest(tmp_path / "a") == {"bytes": 3_000_000, "sha256": sha("x" * 3_000_000)}
    assert digest(tmp_path / "b") == {"bytes": 6, "sha256": sha("1one2two")}
    assert digest_if_readable(tmp_path / "a") == digest(tmp_path / "a")
    for name in ("none", "no\0name"):
        assert digest_if_readable(tmp_path / name) is None


@pytest.mark.parametrize("may_replace", [False, True])
def test_the_record_gets_its_name_last(tmp_path, complete, order, may_replace):
    if may_replace:
        for name in ("a.npy", "a.json", "l.x", "f.x"):
            (tmp_path / name).write_text("old")
    record = {"seed": 1}
    outputs = outputs_in(tmp_path, may_replace=may_replace)
    assert publish(outputs, complete, record) == outputs
    assert order[0] == "a.npy"
    assert sorted(order[1:-1]) == ["f.x", "l.x"]
    assert order[-1] == "a.json"
    assert names(tmp_path) == ["a.json", "a.npy", "f.x", "l.x"]
    text = (tmp_path / "a.json").read_text()
    assert text == files.to_json(record)
    assert record == {
        "seed": 1,
        "output": "a.npy",
        "files": {
            role: {"bytes": len(f"new {role}"), "sha256": sha(f"new {role}")}
            for role in ("video", "latents", "last_frame")
        },
    }
    assert is_whole(json.loads(text), outputs)


def test_another_video_of_this_name_is_kept(tmp_path, complete):
    (tmp_path / "a.npy").write_text("theirs")
    (tmp_path / "a_2.npy").write_text("theirs too")
    record = {}
    made = publish(outputs_in(tmp_path), complete, record)
    assert (made.path.name, record["output"]) == ("a_3.npy", "a_3.npy")
    assert names(tmp_path) == ["a.npy", "a_2.npy", "a_3.json", "a_3.npy", "f.x", "l.x"]
    assert (tmp_path / "a.npy").read_text() == "theirs"


def test_a_failure_before_the_video_has_its_name_leaves_no_record(tmp_path, complete, monkeypatch):
    def fail(*args):
        raise OSError(5, "broken")

    monkeypatch.setattr(files, "rename_to_new", fail)
    with pytest.raises(OSError, match="broken"):
        publish(outputs_in(tmp_path), complete, {})
    assert names(tmp_path) == [".last_frame", ".latents", ".video"]


def interrupted(tmp_path, complete, monkeypatch, after, **more):
    """Publish, but fail at the name number ``after``, as if killed."""
    outputs, seen = outputs_in(tmp_path, may_replace=True, **more), []
    replace = Path.replace

    def fail(path, target):
        seen.append(target)
        if len(seen) > after:
            raise OSError(5, "broken")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="broken"):
            publish(outputs, complete, {"schema": 1, "seed": 3})
    return outputs


@pytest.mark.parametrize("after", [1, 2, 3])
def test_what_was_left_undone_is_done(tmp_path, monkeypatch, after):
    """The files have names of temporaries that a killed process left."""
    complete = {}
    for role, name in (("video", "a.npy"), ("latents", "l.x"), ("last_frame", "f.x")):
        complete[role] = tmp_path / f".{name}.1-ab.part"
        complete[role].write_text(f"new {role}")
    (tmp_path / ".l.x.1-cd.part").write_text("of another run")
    outputs = interrupted(tmp_path, complete, monkeypatch, after)
    assert not (tmp_path / "a.json").exists()
    finish_interrupted(outputs)
    assert names(tmp_path) == ["a.json", "a.npy", "f.x", "l.x"]
    assert is_whole(json.loads((tmp_path / "a.json").read_text()), outputs)


def pending(tmp_path, **record):
    file = tmp_path / ".a.json.1-ab.part.json"
    made = {"schema": 1, "seed": 3, "output": "a.npy", "files": {"video": {"bytes": 3, "sha256": sha("new")}}}
    file.write_text(json.dumps({name: value for name, value in (made | record).items() if value is not ...}))
    return file


def plain(tmp_path, name="a.npy"):
    return OutputPaths(path=tmp_path / name, kind="npy")


def test_a_pending_record_of_a_whole_video(tmp_path):
    pending(tmp_path)
    (tmp_path / "a.npy").write_text("new")
    finish_interrupted(plain(tmp_path))
    assert json.loads((tmp_path / "a.json").read_text())["seed"] == 3
    assert names(tmp_path) == ["a.json", "a.npy"]


def test_seeds_in_names(tmp_path):
    """The name of a drawn seed is found by its pattern; that of the latents is filled in."""
    digests = {"video": {"bytes": 3, "sha256": sha("new")}, "latents": {"bytes": 1, "sha256": sha("l")}}
    file = pending(tmp_path, output="3.npy", files=digests)
    file.rename(tmp_path / ".3.json.1-ab.part.json")
    (tmp_path / ".3.npy.1-ab.part.npy").write_text("new")
    (tmp_path / ".l3.x.1-ab.part.x").write_text("l")
    outputs = OutputPaths(path=tmp_path / "*.npy", kind="npy", latents=tmp_path / "l*.x")
    finish_interrupted(outputs)
    assert names(tmp_path) == ["3.json", "3.npy", "l3.x"]


@pytest.mark.parametrize(
    "damage",
    [
        {"output": ...},
        {"output": 1},
        {"output": "b/a.npy"},
        {"output": "no\0name"},
        {"files": ...},
        {"files": [1]},
        {"files": {}},
        {"files": {"video": None}},
        {"schema": 2},
        {"files": {"video": {"bytes": 4, "sha256": sha("new")}}},
    ],
)
def test_a_record_that_was_not_finished_counts_for_nothing(tmp_path, damage):
    file = pending(tmp_path, **damage)
    (tmp_path / "a.npy").write_text("new")
    (tmp_path / "a.json").write_text('{"schema": 1}')
    finish_interrupted(plain(tmp_path))
    assert names(tmp_path) == [file.name, "a.json", "a.npy"]
    assert (tmp_path / "a.json").read_text() == '{"schema": 1}'


def test_a_video_of_somebody_else_stays(tmp_path):
    pending(tmp_path)
    (tmp_path / "a.npy").write_text("theirs")
    (tmp_path / ".a.npy.1-ab.part.npy").write_text("new")
    finish_interrupted(plain(tmp_path))
    assert (tmp_path / "a.npy").read_text() == "theirs"
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "a.json").write_text('{"schema": 1, "seed": 1}')  # an earlier result of ours
    finish_interrupted(plain(tmp_path))
    assert (tmp_path / "a.npy").read_text() == "new"
    assert json.loads((tmp_path / "a.json").read_text())["seed"] == 3


def test_whole_results(tmp_path):
    outputs = OutputPaths(path=tmp_path / "a.npy", kind="npy", latents=tmp_path / "l")
    (tmp_path / "a.npy").write_text("new")
    (tmp_path / "l").write_text("l")
    known = {"video": {"bytes": 3, "sha256": sha("new")}, "latents": {"bytes": 1, "sha256": sha("l")}}
    assert is_whole({"files": known}, outputs)
    assert is_whole({}, outputs)  # of an earlier version
    for damaged in ([], "x", {}, {"video": known["video"]}, known | {"latents": known["video"]}):
        assert not is_whole({"files": damaged}, outputs)
    (tmp_path / "l").unlink()
    assert not is_whole({"files": known}, outputs)


@pytest.mark.parametrize("number", publishing.SIGNALS)
def test_signals_wait_until_all_names_are_given(tmp_path, complete, monkeypatch, number):
    came, renamed = [], files.rename_to_new
    earlier = signal.signal(number, lambda *how: came.append((how[0], names(tmp_path))))
    handler = signal.getsignal(number)

    def signalled(temporary, path):
        os.kill(os.getpid(), number)
        assert not came
        renamed(temporary, path)

    monkeypatch.setattr(files, "rename_to_new", signalled)
    try:
        publish(outputs_in(tmp_path), complete, {})
        assert came == [(number, ["a.json", "a.npy", "f.x", "l.x"])]
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, earlier)


def test_all_signals_that_end_a_run():
    assert publishing.SIGNALS == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def test_ignored_signals_stay_ignored(tmp_path, complete):
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        publish(outputs_in(tmp_path), complete, {})
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_other_threads_publish_as_well(tmp_path, complete):
    """They cannot set handlers."""
    thread = threading.Thread(target=publish, args=(outputs_in(tmp_path), complete, {}))
    thread.start()
    thread.join()
    assert names(tmp_path) == ["a.json", "a.npy", "f.x", "l.x"]
