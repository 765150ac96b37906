"""Wan's decoders in bands of rows on two processes: what one process decodes, to 1e-5."""

from tests.parallel.test_ranks import launch

WORKER = """
import sys, torch
from types import SimpleNamespace
from diffusers import AutoencoderKLWan
from videogen.models import vae as vae_io
from videogen.ranks import Degrees
from videogen.runtime import parallel

parallel.join(wanted=True)
residual = dict(decoder_base_dim=16, z_dim=48, is_residual=True, in_channels=12, out_channels=12,
                patch_size=2, scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48)
worst = 0.0
for options in (dict(z_dim=16), residual):
    for rows in (4, 7):
        torch.manual_seed(0)
        vae = AutoencoderKLWan(base_dim=8, **options).eval()
        latents = torch.randn(1, options["z_dim"], 3, rows, 5)
        alone = vae_io.decode(vae, latents)
        parallel.spread(SimpleNamespace(transformers=[], vae=vae), Degrees(ulysses=2), torch.device("cpu"))
        worst = max(worst, (vae_io.decode(vae, latents) - alone).abs().max().item())
print(worst)
sys.exit(worst > 1e-5)
"""


def test_bands_are_exact(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    process = launch(2, worker)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err[-2000:]
