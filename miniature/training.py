"""What all trainings share: the schedule of the learning rate, averaged weights, checkpoints, a log."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

WARM_UP = 50  # steps
AVERAGE = 0.995  # of the weights, per step
MOMENTUM = 0.95  # of Muon
MATRIX_RATE = 3.0  # of Muon, in learning rates of AdamW


def fast_products() -> torch.autocast:
    """Compute products in bfloat16 where the processor can; without such instructions it is far slower."""
    can = torch.cpu.get_capabilities()
    names = ("amx_bf16", "avx512_bf16", "bf16")  # of x86, and of ARM
    return torch.autocast("cpu", torch.bfloat16, enabled=any(can.get(name) for name in names))


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices: momentum whose singular values are made equal.

    As ``torch.optim.Muon`` with ``match_rms_adamw``, in float32: torch's is in bfloat16, which takes far
    longer on a processor without instructions for it.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], weight_decay: float = 0.01) -> None:
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all matrices one step."""
        del closure
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                if not (state := self.state[matrix]):
                    state["momentum"] = torch.zeros_like(matrix)
                momentum = state["momentum"]
                momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonal(matrix.grad.lerp(momentum, MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-0.2 * group["lr"] * max(matrix.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix with nearly the same singular vectors, and singular values near 1 (Newton-Schulz)."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@dataclass(slots=True)
class Trainer:
    """State of a training: what a checkpoint holds.

    The matrices of blocks are trained by Muon, all else by AdamW.

    Args:
        modules: by name; all their parameters are trained together.
        folder: of ``checkpoint.pt`` and ``log.jsonl``.
        steps: of the whole training.
        rates: (highest, last) learning rate.
    """

    modules: dict[str, nn.Module]
    folder: Path
    steps: int
    rates: tuple[float, float]
    step: int = 0
    seconds: float = 0.0
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    averages: dict[str, dict[str, torch.Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        """Make the optimizers, and go on from a checkpoint if there is one."""
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        matrices = {p for module in self.modules.values() for p in _matrices(module)}
        others = [p for p in parameters if p not in matrices]
        self.optimizers = [torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01)]
        if matrices:
            ordered = [p for p in parameters if p in matrices]
            self.optimizers.append(Muon(ordered))
        self.averages = {
            name: {key: value.detach().clone() for key, value in module.state_dict().items()}
            for name, module in self.modules.items()
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        if (file := self.folder / "checkpoint.pt").exists():
            saved = torch.load(file, weights_only=True)
            for name, module in self.modules.items():
                module.load_state_dict(saved["modules"][name])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.averages, self.step, self.seconds = saved["averages"], saved["step"], saved["seconds"]

    def rate(self) -> float:
        """Return the learning rate of this step: a warm-up, then half a cosine."""
        high, low = self.rates
        part = min(self.step / self.steps, 1)
        return (low + (high - low) * (1 + math.cos(math.pi * part)) / 2) * min(1, (self.step + 1) / WARM_UP)

    def run(self, *, save_every: int = 100) -> Iterator[int]:
        """Yield the number of every step that is left; save now and then, and at the end."""
        while self.step < self.steps:
            began = time.monotonic()
            yield self.step
            self.step += 1
            self.seconds += time.monotonic() - began
            if self.step % save_every == 0 or self.step == self.steps:
                self.save()

    def train(
        self,
        loss_of: Callable[[int, np.random.Generator], torch.Tensor],
        write: Callable[[], None],
        log_every: int = 50,
        write_every: int = 1000,
        save_every: int = 250,
    ) -> None:
        """Run the steps that are left; every one draws from its own number as a seed."""
        losses = []
        for step in self.run(save_every=save_every):
            torch.manual_seed(step)
            loss = loss_of(step, np.random.default_rng(step))
            self.update(loss)
            losses.append(float(loss.detach()))
            if (step + 1) % log_every == 0:
                self.log(loss=float(np.mean(losses)))
                losses.clear()
            if (step + 1) % write_every == 0 and step + 1 < self.steps:
                write()
        write()

    def update(self, loss: torch.Tensor) -> None:
        """Descend one step, and move the averages."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers:
            is_muon = isinstance(optimizer, Muon)
            for group in optimizer.param_groups:
                group["lr"] = self.rate() * (MATRIX_RATE if is_muon else 1)
                nn.utils.clip_grad_norm_(group["params"], 1.0)
            optimizer.step()
        keep = min(AVERAGE, (1 + self.step) / (10 + self.step))
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                self.averages[name][key].lerp_(value, 1 - keep)

    def save(self) -> None:
        """Write the checkpoint, renamed into place."""
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "averages": self.averages,
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def log(self, **values: float) -> None:
        """Add a line to the log, and print it."""
        line = json.dumps({"step": self.step, "seconds": round(self.seconds), **values})
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the weights of linear layers in repeated blocks."""
    for blocks in module.modules():
        if isinstance(blocks, nn.ModuleList):
            yield from (layer.weight for layer in blocks.modules() if isinstance(layer, nn.Linear))
