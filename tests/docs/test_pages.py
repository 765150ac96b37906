"""README and manual: links lead somewhere, options exist and are all there, README stays short."""

import re

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES
from videogen.checkpoints.resolve import licence_note
from videogen.cli import published
from videogen.tasks import config
from videogen.tasks.options import FLAG_NAMES, OPTIONS
from videogen.tasks.table import TASKS, VARIANTS

# Flags of other programs that a page speaks of.
OTHERS = {
    *("index-url", "nproc_per_node", "nnodes", "rdzv_backend", "rdzv_endpoint"),  # pip, torchrun
    *("array", "ntasks-per-node", "gpus-per-node", "gpus-per-task", "nodes"),  # SLURM
    *("rm", "gpus", "user"),  # Docker
    *("address", "head", "port"),  # Ray
    *("table", "dry", "gpu", "mode", "model", "task", "help", "plot", "prompts"),  # benchmarks, parser
}


def text_of(page):
    """Return a page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"(?:\]\(|<img src=\")([^)\s\"]+)", text_of(page)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}"


def test_every_page_is_linked():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    }
    assert [page.name for page in PAGES if page.name != "README.md" and page not in linked] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_is_one(page):
    said = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", page.read_text(encoding="utf-8")))
    known = FLAG_NAMES.keys() | published.ROWS.keys()
    unknown = {flag for flag in said if flag.replace("-", "_") not in known} - OTHERS
    assert unknown == set()


def test_every_option_is_on_the_page_of_options():
    page = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    said = set(re.findall(r"--(\w+)", page))
    assert {name for name in OPTIONS if name not in said} == set()


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_has_a_page_that_names_its_models(task):
    folder = ROOT / "docs/tasks"
    pages = [page.read_text(encoding="utf-8") for page in folder.glob("*.md")]
    (page,) = (page for page in pages if task.name in page.partition("\n")[0].removeprefix("# ").split())
    assert task.default_model() in page


@pytest.mark.parametrize(
    "row", [row for rows in VARIANTS.values() for row in rows], ids=lambda row: f"{row.name} {row.family}"
)
def test_every_model_has_a_licence_that_the_manual_names(row):
    licence = config.read("licences")[row.config()["licence"]]
    page = (ROOT / "docs/models_and_licences.md").read_text(encoding="utf-8")
    assert licence["name"] in page
    assert licence.get("limits", "") in page
    model = row.default_model()
    assert licence["name"] in licence_note(model, row)
    assert licence_note("somebody/another", row).endswith("see hf.co/somebody/another")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_ci_runs_the_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.search(r"## Tests\n\n```bash\n(.*?)\n```", readme, flags=re.DOTALL).groups()
    assert command in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
