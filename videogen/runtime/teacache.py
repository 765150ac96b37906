"""TeaCache applied to a built transformer: steps that change little reuse the last residual.

Before the blocks run, the relative change of the time conditioning since the last call is mapped to an
expected change of the output (a polynomial per model, see tasks/teacache_tables.py) and accumulated. While
the sum is below the threshold, the residual that the blocks added last time is added again and the blocks are
skipped.

There are two ways of counting calls: ``Published`` is SkyReels-V2's, including its quirks; ``Fixed`` counts
per guidance branch and step. Source: spec skyreels_v2 section 10.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager
from torch import Size, Tensor, nn

from videogen.models.interface import Network
from videogen.tasks.teacache_tables import Table

HOOK = "videogen_teacache"
RETAINED = {False: 2, True: 10}  # calls computed at the start, without and with --use_ret_steps; 2 per step


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision for one call of the transformer: compute or reuse, and why.

    ``state``: whose cache was used (even, odd, or a branch). ``count``: the counter before the call.
    ``distance``: relative change of the signal (None if not measured or nothing to compare with).
    ``accumulated``: the sum after the call.
    """

    state: str
    count: int
    distance: float | None
    accumulated: float
    computed: bool


class Counting(ABC):
    """Policy that decides call by call from distances alone; computes always before the first ``reset``."""

    def __init__(self, coefficients: Sequence[float], *, threshold: float, use_ret_steps: bool) -> None:
        self.coefficients, self.threshold, self.use_ret_steps = coefficients, threshold, use_ret_steps
        self.reset(0)

    def reset(self, num_steps: int) -> None:
        """Start a generation of ``num_steps`` steps, or of several loops of which this is the first."""
        self.num_steps = num_steps
        self.accumulated: dict[str, float] = {}

    @abstractmethod
    def start_loop(self, num_steps: int, published_steps: int | None = None) -> None:
        """Start a denoising loop; see ``TeaCache.start_loop``."""

    @abstractmethod
    def _next(self, branch: str) -> tuple[str, int, bool]:
        """Count a call: (whose state it uses, the counter before it, whether it must be computed)."""

    def decide(self, branch: str, measure: Callable[[str], float | None]) -> Decision:
        """Decide one call; ``measure`` returns the distance for a state and is not called if forced."""
        state, count, forced = self._next(branch)
        distance = None if forced else measure(state)
        accumulated, computed = 0.0, True
        if distance is not None:
            change = 0.0
            for coefficient in self.coefficients:  # bit-exact with numpy.polyval; may be negative
                change = change * distance + coefficient
            accumulated = self.accumulated.get(state, 0.0) + change
            computed = not accumulated < self.threshold  # True for a NaN as well
        self.accumulated[state] = 0.0 if computed else accumulated
        return Decision(state, count, distance, self.accumulated[state], computed)


class Published(Counting):
    """Published policy: one call counter, wrapped after ``num_steps`` calls; its parity is the branch.

    A step makes two calls. So the calls forced at the start are forced again half-way, those at the end are
    never reached, and with an odd number of steps the branches swap. A loop sets where the counter wraps; the
    window at the end stays that of the generation. Every loop starts at 0. The published counter returns to 0
    by itself unless it expects another number of steps; then it crashes or mixes segments.
    """

    def reset(self, num_steps: int) -> None:
        super().reset(num_steps)
        self.count = 0
        self.cutoff = 2 * num_steps - (0 if self.use_ret_steps else 2)

    def start_loop(self, num_steps: int, published_steps: int | None = None) -> None:  # noqa: ARG002
        self.count = 0
        if published_steps is not None:
            self.num_steps = published_steps

    def _next(self, branch: str) -> tuple[str, int, bool]:  # noqa: ARG002 - not known to the published code
        count = self.count
        self.count = count + 1 if count + 1 < self.num_steps else 0
        forced = count < RETAINED[self.use_ret_steps] or count >= self.cutoff
        return ("even", "odd")[count % 2], count, forced


class Fixed(Counting):
    """Corrected policy: one step counter per guidance branch, restarted for every denoising loop.

    The first step (with ``use_ret_steps`` the first five) and, without it, the last one are computed.
    """

    def reset(self, num_steps: int) -> None:
        super().reset(num_steps)
        self.counts: dict[str, int] = {}

    def start_loop(self, num_steps: int, published_steps: int | None = None) -> None:  # noqa: ARG002
        self.reset(num_steps)

    def _next(self, branch: str) -> tuple[str, int, bool]:
        count = self.counts.get(branch, 0)
        self.counts[branch] = count + 1
        last = self.num_steps - (0 if self.use_ret_steps else 1)
        return branch, count, count < RETAINED[self.use_ret_steps] // 2 or count >= last


class TeaCache(ModelHook):
    """Hook on the block stack of one transformer, whose blocks may be compiled, streamed or quantized.

    ``log`` holds the decisions since the last ``reset``. Each state stores one residual [B, F, S, D] in the
    dtype of the tokens and one signal [B, F or 1, D] or [B, F or 1, 6, D] in float32. Tokens may be sharded
    over ranks before the stack is called, not inside it (see runtime/parallel.py).

    Args:
        transformer: network to change. Its ``blocks`` run all blocks, and its ``condition_embedder`` returns
            the time embedding and the modulation.
        table: coefficients from ``choose_table``.
        threshold: accumulated change below which a call is skipped (0.1 about 2x, 0.2 about 3x as fast).
        use_ret_steps: use the modulation as signal, not the time embedding, and compute more at the start.
        fixed: count steps per guidance branch and loop, not calls as published.
        sync_scalar: distance -> distance that all ranks use.

    Raises:
        ValueError: it is already enabled.
    """

    recorded_as: ClassVar[str] = "teacache"
    _is_stateful = True  # so that cache_context reaches ``branch``

    def __init__(
        self,
        transformer: Network,
        table: Table,
        *,
        threshold: float,
        use_ret_steps: bool,
        fixed: bool,
        sync_scalar: Callable[[float], float] = float,
    ) -> None:
        super().__init__()
        self.transformer, self.sync_scalar = transformer, sync_scalar
        self.counting = (Fixed if fixed else Published)(
            table.coefficients(use_ret_steps), threshold=threshold, use_ret_steps=use_ret_steps
        )
        self.branch = StateManager(dict)  # only for its context, which has the name of the current branch
        self.log: list[Decision] = []
        self.signals: dict[str, Tensor] = {}
        self.residuals: dict[str, Tensor] = {}

        blocks = transformer.blocks
        self._fresh = "forward" not in vars(blocks) and not hasattr(blocks, "_diffusers_hook")
        HookRegistry.check_if_exists_or_initialize(blocks).register_hook(self, HOOK)
        self._listener = transformer.condition_embedder.register_forward_hook(self._listen)
        self._forget_registries()

    @property
    def computed(self) -> int:
        """Number of calls since ``reset`` that ran the blocks."""
        return sum(decision.computed for decision in self.log)

    @property
    def skipped(self) -> int:
        """Number of calls since ``reset`` that reused a residual."""
        return len(self.log) - self.computed

    def reset(self, num_steps: int) -> None:
        """Start a generation; ``num_steps`` is the start value of published counting."""
        self.counting.reset(num_steps)
        self.end_loop()
        self.log.clear()

    def start_loop(self, num_steps: int, published_steps: int | None = None) -> None:
        """Start a denoising loop of ``num_steps`` steps.

        ``published_steps``: number of steps that the published code sets for the loop, if it differs.
        """
        self.counting.start_loop(num_steps, published_steps)
        self.end_loop()

    def end_loop(self) -> None:
        """Free cached tensors; the next loop starts by computing."""
        self.signals.clear()
        self.residuals.clear()

    @property
    def needs_pairs(self) -> bool:
        """Return whether every step must make two calls, because calls and not branches are counted."""
        return isinstance(self.counting, Published)

    def disable(self) -> None:
        """Restore the transformer to its original state."""
        blocks = self.transformer.blocks
        registry = HookRegistry.check_if_exists_or_initialize(blocks)
        registry.remove_hook(HOOK, recurse=False)
        if self._fresh and not registry.hooks:  # diffusers does not remove them
            del blocks._diffusers_hook, blocks.forward
        self._listener.remove()
        self._forget_registries()
        self.end_loop()

    def new_forward(
        self, _module: nn.Module, hidden_states: Tensor, text: Tensor, temb: Tensor, *others: object
    ) -> Tensor:
        """Run or skip the blocks; takes the arguments of ``WanBlocks.forward``."""
        signal = temb if self.counting.use_ret_steps else self._embedding
        branch = getattr(self.branch._context, "name", "")
        decision = self.counting.decide(
            branch, lambda state: self._distance(state, signal, hidden_states.shape)
        )
        self.log.append(decision)
        self.signals[decision.state] = signal
        if not decision.computed:
            return hidden_states + self.residuals[decision.state]
        self.residuals.pop(decision.state, None)  # free it before the blocks run
        output = self.fn_ref.original_forward(hidden_states, text, temb, *others)
        self.residuals[decision.state] = output - hidden_states
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        """Clear cached tensors; diffusers calls this after a generation."""
        self.end_loop()
        return module

    def _distance(self, state: str, signal: Tensor, shape: Size) -> float | None:
        """Return mean|signal - previous| / mean|previous|; None without a residual of this shape.

        Both signals are float32. A signal with a single level is broadcast over the frames.
        """
        residual = self.residuals.get(state)
        if residual is None or residual.shape != shape:
            return None
        previous = self.signals[state]
        return self.sync_scalar(((signal - previous).abs().mean() / previous.abs().mean()).item())

    def _listen(self, _embedder: nn.Module, _arguments: object, outputs: tuple[Tensor, Tensor]) -> None:
        self._embedding = outputs[0]

    def _forget_registries(self) -> None:
        """Clear the list of hooked modules that ``cache_context`` caches, so that it is rebuilt."""
        if (registry := getattr(self.transformer, "_diffusers_hook", None)) is not None:
            registry.invalidate_child_registries_cache()
