"""From a plan to files: load its model once, generate, stream the frames out, keep the metadata.

The command line, chained generation, job lists (engine/queue.py) and Python users all come through here.
"""

import gc
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from videogen.checkpoints.layouts import Checkpoint
from videogen.engine.generate import run_worker, write
from videogen.engine.inputs import refuse_changed_inputs
from videogen.engine.load import fetch, fetch_loras, set_up
from videogen.engine.model_key import model_key
from videogen.engine.out_of_memory import advise_when_out_of_memory
from videogen.engine.outcome import Result
from videogen.engine.prompt_writer import PromptWriters, shares_device, write_prompts
from videogen.errors import InputError
from videogen.pipelines.base import VideoPipeline
from videogen.planning import measured_rates
from videogen.planning.plan import Outline, Plan
from videogen.results.progress import Reporter
from videogen.runtime import apply, memory, parallel
from videogen.runtime import device as devices
from videogen.runtime.parallel import SINGLE_PROCESS, Communicator

logger = logging.getLogger(__name__)


@dataclass
class Session:
    """Holder of the one loaded pipeline; another takes its place when a plan needs it."""

    fetched: dict[tuple, Checkpoint] = field(default_factory=dict)
    pipeline: VideoPipeline | None = None
    key: tuple | None = None
    keep_prompt_writers: bool = False
    communicator: Communicator = SINGLE_PROCESS
    reporter: Reporter = field(default_factory=Reporter)

    def __post_init__(self) -> None:
        self.prompt_writers = PromptWriters(keep=self.keep_prompt_writers)
        self.offloaded = False

    def fetch(self, plan: Outline) -> Plan:
        """Return the plan with its model and its LoRAs on this machine."""
        if isinstance(plan, Plan):
            return plan
        loras = fetch_loras(plan.options)
        found, task = plan.checkpoint, plan.task
        key = (found.name, found.revision, task.name, task.family, *sorted(found.replaced.items()))
        if key not in self.fetched:
            timeout = plan.options.download_timeout
            self.fetched[key] = fetch(plan.checkpoint, plan.task, timeout, self.reporter)
        fetched = self.fetched[key]
        if fetched.family != plan.task.family:  # only for ids that no table knows
            what = f"turned out to be a {fetched.family} model, which has other defaults"
            raise InputError(
                "--model_id", fetched.name, what, "it is here now: the same command again uses them"
            )
        made = plan.fetched(fetched, loras)
        for note in made.warnings[len(plan.warnings) :]:  # about files that were not here
            logger.warning(note)
        return made

    def ensure_downloaded(self, plan: Outline) -> Plan:
        """Return the plan with its model on every rank's machine."""

        def here() -> Plan:
            if isinstance(plan, Plan) and (folder := plan.checkpoint.folder) and not folder.is_dir():
                return self.fetch(plan.without_files())  # the files are on rank 0's machine
            return self.fetch(plan)

        return self.communicator.local_rank_first(here)

    def stop_workers(self) -> None:
        """Broadcast the shutdown signal to the worker ranks."""
        self.communicator.broadcast(None)

    def load(self, plan: Plan) -> VideoPipeline:
        """Return the pipeline of a fetched plan, set up as its options say."""
        if self.pipeline is None or self.key != model_key(plan):
            if self.pipeline is not None:
                self.release()
            self.pipeline, self.key = set_up(plan, self.reporter), model_key(plan)
        if self.offloaded:
            assert self.pipeline.component_offload is not None
            self.pipeline.component_offload.place_residents()
            self.offloaded = False
        return self.pipeline

    def with_prompt(self, plan: Plan) -> Plan:
        """Write the plan's prompt; meanwhile a loaded pipeline makes room on a GPU that both use.

        Raises:
            VideoGenError: no prompt could be written.
        """
        if plan.written or not plan.prompt_writers:
            return plan
        offload = None if self.pipeline is None else self.pipeline.component_offload
        if offload is not None and shares_device(plan.options):
            offload.place_residents(memory.CPU)
            torch.cuda.empty_cache()
            self.offloaded = True
        (plan,), errors = write_prompts([plan], self.prompt_writers)
        for error in errors.values():
            raise error
        return plan

    def close(self) -> None:
        """Drop everything that is loaded."""
        self.prompt_writers.close()
        self.release()

    def release(self) -> None:
        """Drop the loaded pipeline and its memory."""
        self.pipeline, self.key, self.offloaded = None, None, False
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def worker_loop() -> None:
    """Run every video that rank 0 announces, without writing any."""
    session = Session(communicator=parallel.init_communicator(wanted=True))
    while (order := session.communicator.broadcast(None)) is not None:
        plan, resume = order
        _make(plan, session, resume=resume)


def generate(plan: Outline, session: Session | None = None, *, resume: bool = False) -> Result:
    """Make one video and write it, its latents if asked for, and its sidecar; see ``engine.generate.write``.

    Raises:
        VideoGenError: it could not be made or written; nothing is left under the final names.
    """
    session = session or Session()
    session.communicator.broadcast((plan, resume))
    return _make(plan, session, resume=resume)


def _make(outline: Outline, session: Session, *, resume: bool) -> Result:
    """Generate a video on this rank; rank 0 writes it."""
    started, communicator = time.perf_counter(), session.communicator
    with advise_when_out_of_memory(outline), refuse_changed_inputs(outline):
        plan = session.ensure_downloaded(outline)
        loaded = session.key != model_key(plan)
        pipeline = session.load(plan)
        pipeline.seconds.clear()
        pipeline.step_seconds.clear()
        pipeline.seconds["load"] = time.perf_counter() - started
        device, options = pipeline._execution_device, plan.options
        devices.reset_peak(device)
        pipeline.embedding_cache = Path(options.embedding_cache) if options.embedding_cache else None
        pipeline.reporter = session.reporter
        pipeline.set_progress_bar_config(disable=True)
        tiled = memory.choose_tiling(
            pipeline, options.vae_tiling, plan.facts.memory, device, low_vram=options.low_vram
        )
        pipeline.vae.use_tiling = communicator.broadcast(tiled)
        ratios = communicator.broadcast(plan.files.ratios if communicator.is_main_process else None)
        apply.set_step_cache(pipeline, options, table=plan.facts.teacache, ratios=ratios)
        generator = torch.Generator(options.noise_device).manual_seed(plan.seed)
        try:
            if not communicator.is_main_process:
                run_worker(plan, pipeline, generator, communicator)
                return Result(outputs=plan.outputs, record={})
            result = write(plan, pipeline, generator, started, communicator=communicator, resume=resume)
            apply.keep_ratios(pipeline, plan.files.ratios_file, plan.facts.schedule)
            measured_rates.store(plan, result.record, loaded=loaded)
            return result
        finally:  # also after a failure: offloading must begin with everything in RAM
            pipeline.maybe_free_model_hooks()
