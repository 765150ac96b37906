"""What becomes of a plan: results that are there already, and failures that hold on to nothing."""

import gc
import weakref

import pytest

from videogen.engine.outcome import earlier_result, failed, finished_results, skipped
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy
from videogen.results.progress import Failed, Reporter, Skipped


@pytest.fixture
def plan(cli, r2v, tmp_path):
    """The plan of a video that an earlier run has made, made with --resume."""
    output = tmp_path / "a.npy"
    words = (*r2v, "--seed", "3", "--output", output)
    finished = cli(*words)
    assert finished.code == 0, finished.err
    from videogen.cli.parser import parse

    values = parse([str(word) for word in words])[0]
    return make_plans([Item(values=values)], OverwritePolicy(resume=True), tmp_path)[0]


def test_a_finished_video_is_found_and_reported(plan):
    result = earlier_result(plan)
    assert result.outputs.path.name == "a.npy"
    assert result.record["seed"] == 3
    assert finished_results([plan]).keys() == {plan.index}
    reports = []
    outcome = skipped(plan, result, Reporter(reports.append))
    assert outcome.result is result
    assert (outcome.status, outcome.record()["plan_hash"]) == ("skipped", plan.plan_hash)
    (report,) = reports
    assert report.index == plan.index
    assert report.event == Skipped(path=str(result.outputs.path), sidecar=str(result.outputs.sidecar))


def test_a_damaged_video_is_made_again(plan, caplog):
    plan.outputs.path.write_bytes(b"cut")
    assert earlier_result(plan) is None
    assert "a.npy is damaged, and made again" in caplog.text
    assert finished_results([plan]) == {}


def test_a_failure_lets_go_of_what_its_run_held(plan):
    class Tensor:
        """Something that a frame holds on to."""

    def run():
        held = Tensor()
        held_by.append(weakref.ref(held))
        raise ValueError("no\nluck")

    held_by, reports = [], []
    try:
        run()
    except ValueError as error:
        failure = failed(plan, error, Reporter(reports.append), seconds=1.5)
    gc.collect()
    assert held_by[0]() is None
    assert "in run" in failure.trace
    assert failure.plan is plan
    record = failure.record()
    assert (record["status"], record["seconds"], record["exit_code"]) == ("failed", 1.5, 1)
    (event,) = [report.event for report in reports]
    assert isinstance(event, Failed)
    assert "no" in event.message
    assert "\n" not in event.message
