"""Memory of the 14B transformer with a noise level per latent frame, counted without weights or data."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from videogen.models.wan.attention import WanAttnProcessor
from videogen.models.wan.transformer import FLOAT32_PARTS, WanDiT

FRAMES, ROWS, COLUMNS = 25, 68, 120  # 97 frames of 544 x 960
TOKENS = FRAMES * ROWS * COLUMNS // 4


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return made


@torch.no_grad()
def test_modulation_stays_per_frame(monkeypatch):
    """The widest thing is the feed-forward layer; modulation per token would be four times as large."""
    # As any fused kernel allocates; without data, torch would take the one that makes the L x L matrix.
    monkeypatch.setattr(WanAttnProcessor, "__call__", lambda self, query, *_, **__: query.clone().flatten(2))
    with torch.device("meta"):
        model = WanDiT(num_layers=1)
        for name, parameter in model.named_parameters():
            if not any(part in name for part in FLOAT32_PARTS):
                parameter.data = parameter.to(torch.bfloat16)
        inputs = {
            "hidden_states": torch.empty(1, 16, FRAMES, ROWS, COLUMNS, dtype=torch.bfloat16),
            "encoder_hidden_states": torch.empty(1, 512, 4096, dtype=torch.bfloat16),
        }
    embedding, modulation = torch.empty(1, FRAMES, 5120), torch.empty(1, FRAMES, 6, 5120)
    # How many levels are distinct cannot be known without data; every frame has its own here.
    model.condition_embedder.forward = lambda timestep: (embedding.to("meta"), modulation.to("meta"))
    with Largest() as largest:
        model(timestep=torch.empty(1, FRAMES, device="meta"), **inputs)
    feed_forward = TOKENS * model.config.ffn_dim * 2
    per_token = TOKENS * 6 * 5120 * 2
    assert TOKENS * 5120 * 2 < largest.size <= feed_forward < per_token
