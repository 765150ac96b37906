"""Quantized transformers beside bfloat16: bytes of their weights, and the error of the final latents.

    python -m benchmarks.quantized
    python -m benchmarks.quantized --only "GGUF Q4_0" "--quantize int8"
    python -m benchmarks.quantized --model_id FOLDER --device cuda --steps 30 --size 832*480

Everything else is a flag of generate_video.py.

Per format: bytes of the transformers' weights as they are loaded, over those of bfloat16; relative error of
the final latents |x - bfloat16| / |bfloat16| (same seed and noise); and what --dry_run says of
SkyReels-V2-T2V-14B, weights of the transformer and peak. The float8 and GGUF files are written from the
bfloat16 weights, so the error is that of their format. The row float32 shows what rounding to bfloat16 does.

Without a model, a small one with random weights, wide enough for the blocks of all formats. Its layers are
narrow, so what stays as it is (embeddings, norms, biases) weighs more than in a large model.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from videogen.cli.parser import parse
from videogen.engine.load import set_up
from videogen.models import tiny
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.base import VideoPipeline
from videogen.planning.plan import Outline, Plan
from videogen.planning.request import Item, make_plans
from videogen.results.output_paths import OverwritePolicy
from videogen.runtime.precision import inner_tensors

TASK = "text_to_video"
LARGE = "Skywork/SkyReels-V2-T2V-14B-540P"
LARGE_SIZES = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40}
SMALL_MODEL = """
seed: 2
sizes: tiny
defaults: {resolution: TINY, num_frames: 17}
transformer: {num_attention_heads: 2, attention_head_dim: 128, ffn_dim: 512, num_layers: 4, text_dim: 32}
text_encoder: {d_model: 32, d_kv: 8, d_ff: 64, num_heads: 4, num_layers: 2}
vae: {base_dim: 8}
"""
SMALL_VIDEO = ("--height", "96", "--width", "160", "--num_frames", "17")
FLOAT8 = torch.float8_e4m3fn
EXPERTS = ("high", "low")

Write = Callable[[Mapping[str, Tensor], Path], Path]
"""Writes a transformer's tensors in a format, beside the path that is given; returns the file. Of tensors on
the meta device the numbers are left out: the file is as long, and takes no room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How a transformer is quantized: by options, or in its file."""

    options: tuple[str, ...] = ()
    write: Write | None = None


def is_large(name: str, tensor: Tensor) -> bool:
    """Return whether published files quantize a tensor: the matrices of the blocks."""
    return tensor.ndim == 2 and name.startswith("blocks.") and name.endswith(".weight")


def write_float8(tensors: Mapping[str, Tensor], place: Path) -> Path:
    """Write float8 with a scale per matrix, as ComfyUI has it."""
    file, stored = place.with_suffix(".safetensors"), {"scaled_fp8": torch.zeros(2, dtype=FLOAT8)}
    for name, tensor in tensors.items():
        stored[name] = tensor.contiguous()
        if is_large(name, tensor):
            scale = tensor.float().abs().max() / torch.finfo(FLOAT8).max
            stored[name] = (tensor.float() / scale).to(FLOAT8)
            stored[name.removesuffix("weight") + "scale_weight"] = scale
    if any(tensor.is_meta for tensor in tensors.values()):
        write_sparse(stored, file)
    else:
        save_file(stored, file)
    return file


def write_sparse(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write the header of a safetensors file, and a hole where its numbers would be."""
    names, header, end = {torch.float32: "F32", torch.bfloat16: "BF16", FLOAT8: "F8_E4M3"}, {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        about = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        header[name] = about
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    with file.open("r+b") as opened:
        opened.truncate(8 + len(text) + end)


def write_gguf(kind: str, tensors: Mapping[str, Tensor], place: Path) -> Path:
    """Write a GGUF file with matrices in a format; the rest, and rows not of whole blocks, in float32."""
    import gguf  # noqa: PLC0415 - optional

    file, types = place.with_suffix(".gguf"), gguf.GGMLQuantizationType
    writer, hole = gguf.GGUFWriter(file, "wan"), 0
    for name, tensor in tensors.items():
        whole = is_large(name, tensor) and tensor.shape[1] % gguf.GGML_QUANT_SIZES[types[kind]][0] == 0
        stored = types[kind] if whole else types.F32
        if tensor.is_meta:
            per_block, block = gguf.GGML_QUANT_SIZES[stored]
            size = tensor.numel() // per_block * block
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size, stored)
            hole += writer.ggml_pad(size, writer.data_alignment)
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    if hole:
        writer.write_ti_data_to_file()
    else:
        writer.write_tensors_to_file()
    writer.close()
    if hole:
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size + writer.data_alignment + hole)
    return file


FORMATS = {
    "float32": Format(options=("--dtype", "float32")),
    "float8 file": Format(write=write_float8),
    **{f"GGUF {kind}": Format(write=partial(write_gguf, kind)) for kind in ("Q8_0", "Q4_0")},
    **{f"--quantize {name}": Format(options=("--quantize", name)) for name in ("int8", "int4", "float8")},
}


def make_plan(folder: Path, *words: str) -> Outline:
    """Return the plan of a video that is never written."""
    given = ("--task_type", TASK, "--prompt", "a robot waves", "--seed", "1")
    values, _ = parse([*given, "--output", str(folder / "video.npy"), *words])
    (plan,) = make_plans([Item(values=values)], OverwritePolicy(), folder)
    return plan


def weight_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, of quantized ones those of all their parts."""
    parts = [getattr(tensor, name) for tensor in tensors for name in inner_tensors(tensor)]
    return sum(part.nbytes for part in parts)


def transformer_bytes(pipeline: VideoPipeline) -> int:
    modules: list[nn.Module] = list(pipeline.transformers)
    return sum(weight_bytes((*module.parameters(), *module.buffers())) for module in modules)


def load(plan: Outline) -> VideoPipeline:
    assert isinstance(plan, Plan), "the model is not on this machine"
    pipeline = set_up(plan)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def final_latents(plan: Outline, pipeline: VideoPipeline) -> Tensor:
    generator = torch.Generator().manual_seed(plan.seed)
    part = next(iter(pipeline.parts(**plan.arguments, generator=generator)))
    return part.latents.double().cpu()


def files_of(write: Write, transformers: Iterable[Mapping[str, Tensor]], place: Path) -> list[str]:
    """Write the file of every transformer; return the words that give them to the command line."""
    tables = list(transformers)
    suffixes = [f":{expert}" for expert in EXPERTS] if len(tables) > 1 else [""]
    words = []
    for number, (table, suffix) in enumerate(zip(tables, suffixes, strict=True)):
        words += ["--transformer", f"{write(table, place.with_name(f'{place.name}{number}'))}{suffix}"]
    return words


def large_memory(folder: Path, way: Format) -> tuple[int, int]:
    """Return bytes of a large model's transformer, and of a run at its peak, as --dry_run counts them."""
    words = [*way.options]
    if way.write is not None:
        with torch.device("meta"):
            tensors = WanDiT(**LARGE_SIZES).state_dict()
        halves = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
        words += files_of(way.write, [halves], folder / "large")
    plan = make_plan(folder, "--model_id", LARGE, *words)
    return plan.facts.memory.transformers[0], plan.memory_bytes["plain"]


def row(label: str, size: int, plain: int, error: float, large: tuple[int, int]) -> str:
    cells = (label, f"{size:,}", f"{size / plain:.2f}", f"{error:.2g}", *(f"{n / 1e9:.1f}" for n in large))
    return f"| {' | '.join(cells)} |"


def table(words: tuple[str, ...], formats: Iterable[str], folder: Path) -> None:
    """Print the rows; the first is bfloat16, from whose weights the files are written."""
    plan = make_plan(folder, *words, "--dtype", "bfloat16")
    pipeline = load(plan)
    plain, exact = transformer_bytes(pipeline), final_latents(plan, pipeline)
    states = [{key: value.cpu() for key, value in t.state_dict().items()} for t in pipeline.transformers]
    del pipeline
    print("| transformer | bytes | of bfloat16 | error of latents | 14B, GB | 14B, peak GB |")
    print("|---|---|---|---|---|---|")
    print(row("bfloat16", plain, plain, 0.0, large_memory(folder, Format())), flush=True)
    for label in formats:
        way = FORMATS[label]
        files = files_of(way.write, states, folder / "own") if way.write else []
        dtype = () if "--dtype" in way.options else ("--dtype", "bfloat16")
        plan = make_plan(folder, *words, *dtype, *way.options, *files)
        pipeline = load(plan)
        size, latents = transformer_bytes(pipeline), final_latents(plan, pipeline)
        error = float((latents - exact).norm() / exact.norm())
        del pipeline
        print(row(label, size, plain, error, large_memory(folder, way)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model_id", help="a folder with a Wan model of text_to_video; default: a small one")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=FORMATS, default=tuple(FORMATS), help="formats to try")
    given, flags = parser.parse_known_args()
    if given.model_id is None:
        torch.set_num_threads(1)  # more are slower with so few numbers
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        words = ("--num_inference_steps", str(given.steps), "--device", given.device)
        if given.model_id is None:
            (folder / "small.yaml").write_text(SMALL_MODEL)
            model = tiny.build(str(folder / "small.yaml"), folder / "small")
            words += ("--model_id", str(model), *SMALL_VIDEO)
        else:
            words += ("--model_id", given.model_id)
        words += tuple(flags)
        print(f"{given.model_id or 'a small model'}, {given.device}, {given.steps} steps")
        table(words, given.only, folder)


if __name__ == "__main__":
    main()
