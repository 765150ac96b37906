"""The page at ``/``: what to make, with fields from the option rows; the queue with progress; the videos.

Gradio is set up so that it sends nothing anywhere, and loads nothing from elsewhere.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from videogen.checkpoints import resolve
from videogen.errors import CheckpointError, InputError, VideoGenError
from videogen.planning import plan_report
from videogen.server import cards
from videogen.server.requests import KINDS, LARGEST_UPLOAD, Upload, explained, for_clients, without_folders
from videogen.server.service import Service
from videogen.tasks.option import Option, typed
from videogen.tasks.option_types import prompts
from videogen.tasks.options import GROUPS, OPTIONS, defaults, merge
from videogen.tasks.table import TASKS, summary, variant
from videogen.tasks.task_spec import TaskSpec

EVERY = 1.0  # seconds between looks at the queue
KEPT = (3600, 86_400)  # seconds: how often uploads of the page are looked through, and how old they may be
FIRST = ("prompt", "resolution", "duration", "num_frames", "seed")  # shown above the other options
# What is said of options that mean another thing here than on the command line.
HELPS = {"seed": "0 .. 2^63-1, or random", "roll_prompts": "a prompt per line, one for every segment"}
UNLIMITED: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
PALE = "*neutral_500"  # of small texts; Gradio's own is too pale to be read (1.9 : 1)
SYSTEM_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")


def mount(app: FastAPI, service: Service, uploads: Path) -> FastAPI:
    """Add the page to an application; what it uploads goes to a folder of its own."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(uploads)}
    import gradio as gr  # noqa: PLC0415 - reads these variables

    text, code = SYSTEM_FONTS
    return gr.mount_gradio_app(
        app,
        _page(service),
        path="/",
        theme=gr.themes.Base(font=list(text), font_mono=list(code)).set(body_text_color_subdued=PALE),
        css_paths=Path(__file__).with_name("page.css"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=LARGEST_UPLOAD,
    )


def _page(service: Service) -> Any:
    import gradio as gr  # noqa: PLC0415

    rows = dict(_rows(service))
    first = next(iter(rows))
    with gr.Blocks(title="videogen", analytics_enabled=False, delete_cache=KEPT, fill_width=True) as page:
        gr.Markdown(f"## videogen\n{service.model}")
        with gr.Row():
            with gr.Column(min_width=340):
                task = gr.Dropdown(list(rows), value=first, label="task", visible=len(rows) > 1)

                @gr.render(inputs=task)
                def form(name: str) -> None:
                    gr.Markdown(summary(name))
                    _form(service, name, rows[name])

            with gr.Column(min_width=340, elem_id="videos"):
                waiting, done = gr.HTML(), gr.HTML()
                shown = gr.State("")
        timer = gr.Timer(EVERY)

        def look(before: str) -> tuple[object, object, str]:
            jobs = service.store.all()[::-1]
            ended = cards.ended(jobs)
            return cards.waiting(jobs, service), gr.skip() if ended == before else ended, ended

        how: dict[str, Any] = {
            "show_progress": "hidden",
            "concurrency_limit": None,
            "api_visibility": "private",
        }
        gr.on([timer.tick, page.load], look, inputs=shown, outputs=[waiting, done, shown], **how)
    return page


def _rows(service: Service) -> Iterator[tuple[str, tuple[TaskSpec, Mapping[str, object]]]]:
    """Yield the tasks that the model of the server can do, each with its row and its defaults."""
    given, only = service.planner.defaults, service.planner.only_task
    for name, task in TASKS.items():
        if only not in (None, name):
            continue
        model, revision = str(given.get("model_id") or task.default_model()), given.get("revision")
        try:
            found = resolve.locate(model, None if revision is None else str(revision), task)
        except (CheckpointError, InputError):
            continue
        row = variant(name, found.family)
        yield name, (row, merge(defaults(), row.defaults(found), given))


def _form(service: Service, task: str, about: tuple[TaskSpec, Mapping[str, object]]) -> None:
    """Draw the fields of a task, and what its buttons do."""
    import gradio as gr  # noqa: PLC0415

    row, usual = about
    files = {name: _file(name, row) for name, kind in row.inputs.items() if not kind.from_python}
    used = [option for option in OPTIONS.values() if row.uses(option.name) and for_clients(option)]
    used = [option for option in used if option.name not in {*KINDS, "task_type"}]
    fields = {name: _field(OPTIONS[name], row, usual) for name in FIRST if OPTIONS[name] in used}
    with gr.Row():
        plan, make = gr.Button("Plan"), gr.Button("Make", variant="primary")
    said = gr.Textbox(lines=2, max_lines=30, interactive=False, show_label=False, elem_id="said")
    for title, groups in GROUPS.items():
        names = {row.name for group in groups for row in dataclasses.fields(group)}
        others = [option for option in used if option.name in names and option.name not in FIRST]
        if others:
            with gr.Accordion(title, open=False):
                fields |= {option.name: _field(option, row, usual) for option in others}

    def asked(given: Sequence[object], stack: ExitStack) -> tuple[dict[str, object], list[Upload]]:
        values = dict(zip([*files, *fields], given, strict=True))
        request = {name: _value(OPTIONS[name], values[name], usual) for name in fields}
        uploads = [
            Upload(name, path.name, stack.enter_context(path.open("rb")))
            for name in files
            for path in _listed(values[name])
        ]
        return {"task_type": task, **request}, uploads

    def show(*given: object) -> str:
        with ExitStack() as stack:
            return _answer(lambda: _plan(service, *asked(given, stack)))

    def queue(*given: object) -> str:
        with ExitStack() as stack:
            return _answer(lambda: f"queued: {service.create(*asked(given, stack)).id}")

    inputs = [*files.values(), *fields.values()]
    plan.click(show, inputs, said, **UNLIMITED)
    make.click(queue, inputs, said, **UNLIMITED)


def _file(name: str, row: TaskSpec) -> Any:
    """Return the field of an input."""
    import gradio as gr  # noqa: PLC0415

    files = row.inputs[name]
    label = name if files.fewest else f"{name} (not needed)"
    how: dict[str, Any] = {"file_count": "multiple"} if files.most > 1 else {}
    return gr.File(label=label, file_types=[files.kind], height=110, **how)


def _field(option: Option, row: TaskSpec, usual: Mapping[str, object]) -> Any:
    """Return the field of an option, of the kind that its row says."""
    import gradio as gr  # noqa: PLC0415

    text = HELPS.get(option.name) or row.helps.get(option.name) or option.help
    text = text.replace("--", "")
    default = usual.get(option.name)
    if option.parse is None:
        return gr.Checkbox(
            label=option.name, info=text, value=bool(default) and option.default is not default
        )
    shown = "" if default in (None, ()) else typed(default) or ""
    choices = row.size_tables() if option.name == "resolution" else getattr(option.parse, "choices", ())
    if choices:
        return gr.Dropdown(
            ["", *choices], value="", label=option.name, info=f"{text} (default {shown})" if shown else text
        )
    lines = 2 if option.is_prompt or option.encoded else 1
    return gr.Textbox(label=option.name, info=text, placeholder=shown, lines=lines, max_lines=lines)


def _value(option: Option, given: object, usual: Mapping[str, object]) -> object:
    """Return what a field says; None where nothing was entered."""
    if option.parse is None:
        return given if given != bool(usual.get(option.name)) else None
    if option.parse is prompts and given:
        return str(given).splitlines()
    return given or None


def _listed(given: object) -> list[Path]:
    """Return the paths of what was uploaded."""
    several = given if isinstance(given, list) else [given]
    return [Path(str(path)) for path in several if path]


def _plan(service: Service, request: dict[str, object], uploads: list[Upload]) -> str:
    """Return the plan for people, without paths of this machine."""
    lines = plan_report.describe(service.plan(request, uploads), advice=False).splitlines()
    return "\n".join(without_folders(line) for line in lines if not line.startswith("output "))


def _answer(work: Any) -> str:
    """Return what some work says, or what is wrong."""
    try:
        return work()
    except VideoGenError as error:
        return explained(error)[0]
