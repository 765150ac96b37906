"""Intact files of every kind that the package reads, made without torch."""

import io
import json
import pickle
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pillow_heif
import soundfile
from PIL import Image, ImageCms
from safetensors.numpy import save_file

from videogen.checkpoints.tensor_headers import tensor_shapes
from videogen.checkpoints.weight_files import weight_files
from videogen.cli import captions
from videogen.results import bundle
from videogen.results.resume_store import ResumeStore

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=12:duration=0.5")
TONE = ("-f", "lavfi", "-i", "sine=duration=0.6")
CODECS = {
    ".mp4": ("-c:v", "libx264", "-metadata", 'comment={"schema": 1, "request": {"prompt": "a"}}'),
    ".mov": (*TONE, "-c:v", "libx264", "-c:a", "aac"),
    ".mkv": ("-c:v", "libx265", "-x265-params", "log-level=error"),
    ".webm": ("-c:v", "libvpx", "-deadline", "realtime"),
    ".avi": ("-c:v", "mpeg4", "-bf", "2"),
    ".flv": ("-c:v", "flv"),
    ".ts": ("-c:v", "libx264"),
    ".mpg": ("-c:v", "mpeg2video", "-r", "25"),
    ".ogv": ("-c:v", "libtheora"),
    ".wmv": ("-c:v", "wmv2"),
    ".ivf": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    ".gif": (),
    ".h264": ("-c:v", "libx264"),
    ".mxf": ("-c:v", "mpeg2video", "-r", "25"),
}
SOUNDS = {
    ".m4a": ("-c:a", "aac"),
    ".mp3": (),
    ".opus": ("-ar", "48000"),
    ".aiff": (),
    ".ac3": (),
}
IMAGES = ("png", "jpeg", "webp", "bmp", "gif", "tiff", "avif")


def ffmpeg(target: Path, *arguments: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments, str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def torch_file(target: Path, shapes: dict[str, tuple[int, ...]], *, extra: bytes = b"") -> Path:
    """Write what torch.save writes, with zeros."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    out, contents = io.BytesIO(), {}
    out.write(b"\x80\x02}q\x00(" + extra)
    for index, (name, shape) in enumerate(shapes.items()):
        count = int(np.prod(shape))
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(index)) + text("cpu")
        size = b"(" + b"".join(b"K" + bytes([n]) for n in shape) + b"t"
        out.write(text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage)
        out.write(
            pickle.dumps(count, 2)[2:-1]
            + b"tQK\x00"
            + size
            + size
            + b"\x89ccollections\nOrderedDict\n)Rq\x01tR"
        )
        contents[f"m/data/{index}"] = bytes(4 * count)
    out.write(b"u.")
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("m/data.pkl", out.getvalue())
        for name, content in contents.items():
            archive.writestr(name, content)
    return target


def make(folder: Path, model: Path) -> None:
    """Write one file of each kind to a folder; ``model`` is that of a small model for reference_to_video."""
    for suffix, options in CODECS.items():
        ffmpeg(folder / f"video{suffix}", *PICTURE, *options)
    for suffix, options in SOUNDS.items():
        ffmpeg(folder / f"sound{suffix}", *TONE, *options)
    samples = (np.sin(np.arange(9600) / 9) * 0.5).astype(np.float32)
    for suffix in ("wav", "flac", "ogg"):
        soundfile.write(folder / f"sound.{suffix}", np.stack([samples, samples], 1), 16000)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in IMAGES:
        options = {"exif": exif} if kind in ("jpeg", "png", "webp", "tiff", "avif") else {}
        Image.fromarray(pixels).save(folder / f"image.{kind}", **options)
    pictures_as_people_have_them(folder, pixels)
    texts(folder)
    shutil.copytree(model, folder / "model")
    chat = folder / "chat"
    chat.mkdir()
    (chat / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}')
    (chat / "tokenizer.json").write_text("{}")
    save_file({"a": np.zeros((2, 3), np.float32)}, chat / "model.safetensors")
    index = {"weight_map": {"a": "model.safetensors"}}
    (chat / "model.safetensors.index.json").write_text(json.dumps(index))
    torch_file(folder / "weights.pth", {f"blocks.{i}.weight": (2, 3) for i in range(9)})
    save_file(
        {f"blocks.{i}.weight": np.zeros((2, 3), np.float16) for i in range(9)}, folder / "w.safetensors"
    )
    shapes = tensor_shapes(weight_files(model / "transformer"))
    width, name = next(
        (shape[0], name) for name, shape in shapes.items() if name.endswith("attn1.to_q.weight")
    )
    layer = f"transformer.{name.removesuffix('.weight')}"
    pair = {f"{layer}.lora_A.weight": (2, width), f"{layer}.lora_B.weight": (width, 2)}
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in pair.items()}, folder / "lora.safetensors"
    )
    parts = folder / "a.parts"
    parts.mkdir()
    np.save(parts / "001.npy", np.zeros((3, 4, 5, 3), np.uint8))
    save_file({"latents": np.zeros((1, 2, 1, 2, 2), np.float32)}, parts / "001.safetensors")
    ResumeStore(parts, "h", {"seed": 1}).mark_finished(0, {})


def pictures_as_people_have_them(folder: Path, pixels: np.ndarray) -> None:
    """Write pictures and videos whose pixels are not 8-bit sRGB."""
    pillow_heif.register_heif_opener()
    Image.fromarray(pixels).save(folder / "image.heic")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "image_16.png")
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(folder / "image_float.tiff")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    palette = Image.fromarray(pixels).quantize(8)
    palette.save(folder / "image_profile.png", icc_profile=profile, transparency=bytes(range(8)))
    np.save(folder / "frames.npy", pixels[None].repeat(5, 0))
    hdr = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc,setsar=4/3"
    hevc = ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=error")
    ffmpeg(folder / "video_hdr.mov", *PICTURE, "-vf", hdr, *hevc)
    fields = ("-flags", "+ilme+ildct", "-x264-params", "tff=1")
    ffmpeg(folder / "video_fields.mp4", *PICTURE, "-c:v", "libx264", *fields)


def texts(folder: Path) -> None:
    """Write the files of options."""
    (folder / "config.yaml").write_text(
        "task_type: text_to_video\nprompt: &p a cat\nseed: [1, 2]\nshift: 3.5\nfps: 24\n"
    )
    (folder / "jobs.txt").write_text("a cat\na dog\n\nein Bär\n", encoding="utf-8")
    (folder / "jobs.jsonl").write_text('{"prompt": "a", "seed": 3}\n{"prompt": "b", "num_frames": 81}\n')
    (folder / "prompts.txt").write_text("a cat\n\nein Bär\n", encoding="utf-8")
    request = {"task_type": "text_to_video", "prompt": "a", "seed": [3], "shift": 8.0, "fps": 24}
    record = {
        "schema": 1,
        "videogen": "1",
        "request": request,
        "plan_hash": "h",
        "inputs": {"input_image": [{"name": "a.png", "sha256": "0"}]},
    }
    (folder / "record.json").write_text(json.dumps(record))
    ratios = {"ratios": {"steps": 4, "transformers": [[1.0, 0.9, 0.8, 0.7]]}, "schedule": {"shift": 8.0}}
    (folder / "ratios.json").write_text(json.dumps(ratios))
    packed = bundle.Packed(
        results=[folder / "record.json"],
        request={"task_type": "image_to_video", "prompt": "a", "seed": 3},
        inputs={"input_image": [bundle.PackedInput("0" * 64, folder / "image.png")]},
    )
    bundle.write(folder / "bundle.zip", [packed, packed])
    columns = (captions.VIDEO, *captions.COLUMNS["describer"])
    (folder / "captions.csv").write_text(f'{",".join(columns)}\na.mp4,a cat\nb.mp4,"a dog, a cat"\n')
    words = {"device": "cpu", "task": "t", "model": "m", "size": "48x32, 5 frames", "date": "2026-11-30"}
    numbers = {"forwards_per_step": 2, "tokens": 12, "pixels": 7680, "step": 0.5, "load": 1.0, "other": 2.0}
    rates = {"rates": [{**words, **numbers, "settings": {"dtype": "float32"}}]}
    (folder / "rates.json").write_text(json.dumps(rates))
