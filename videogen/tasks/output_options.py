"""The options of results: where they go, what they hold, how videos are encoded, what is seen meanwhile."""

from dataclasses import dataclass

from videogen.media.output_formats import CODECS
from videogen.tasks import option_types as types
from videogen.tasks.option import Needs, row, switch

A_SHEET = Needs("sheet", "arranges a sheet")


# fmt: off
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Output:
    """Where results go, and what they hold."""

    output: str | None = row(types.file_path,
        ".mp4, .mov, .webm, .mkv, .gif, .npy, .png of one frame, a folder of PNGs; {any_option} is filled in",
        metavar="PATH", aliases=("save_file",), usual=True, common=True, hashed=False, recorded=False,
        excludes=("output_dir",), instead_of=("output_dir",), set_by_chain=True, has_fields=True,
        names_result=True)
    output_dir: str | None = row(types.path, "folder for <index>_<seed>.mp4", metavar="DIR",
        aliases=("save_path",), common=True, hashed=False, recorded=False, instead_of=("output",),
        chain_default="./continuous_outputs", has_fields=True)
    save_latents: str | None = row(types.file_path, "also keep the denoised latents",
        metavar="FILE.safetensors", common=True, hashed=False, recorded=False, set_by_chain=True,
        has_fields=True, names_result=True)
    codec: str | None = row(types.one_of(*CODECS, libx264="h264", prores_ks="prores", libvpx_vp9="vp9"),
        "how a video file is encoded: prores (.mov), vp9 (.webm), ffv1 (.mkv) is lossless; the suffix "
        "decides unless given", metavar="NAME", common=True)
    crf: int | None = row(types.whole(0, 63), "quality of h264 (default 10) and vp9 (15); lower is better",
        metavar="N", common=True)
    video_colors: str = row(types.one_of("bt709", "published"),
        "bt709 with tags, which every player shows right, or the published files' BT.601 without",
        metavar="HOW", common=True, default="bt709")
    prepend_input: bool = switch("put the input video before the new frames, at its size")
    keep_audio: bool = switch("with --prepend_input: also the input's sound",
        needs=Needs("prepend_input", "the new frames have no sound"))
    save_last_frame: str | None = row(types.file_path, "also keep the last frame, lossless",
        metavar="FILE.png", hashed=False, recorded=False, set_by_chain=True, has_fields=True,
        names_result=True)
    contact_sheet: int | None = row(types.whole(1, 100),
        "also write <name>.sheet.png: N frames (12 unless given), evenly spaced, each with its time",
        metavar="[N]", bare="12", common=True, hashed=False, recorded=False)
    new_frames_only: bool = switch("leave the input video out of the file",
        needs=Needs("input_video", "needs --input_video"))
    keep_parts: bool = switch("keep the preview and the finished segments (<name>.parts/) after success",
        common=True, hashed=False)
    preview_every: int | None = row(types.whole(1),
        "after every K steps show what is predicted, in <name>.preview.webp", metavar="K", common=True,
        hashed=False, recorded=False)
    vae_preview: types.WeightFile | None = row(types.weight_file,
        "decode previews with a tiny autoencoder (TAEHV: taew2_1.pth, taew2_2.pth, taehv.pth)",
        metavar="FILE", common=True, hashed=False, recorded=False,
        needs=Needs("preview_every", "says how previews are decoded"))


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Review:
    """Looking at results that are there already."""

    show: str | None = row(types.path, "print what made a result, and how to make it again",
        metavar="FILE", about_run=True, answers=True, set_by_chain=True)
    diff: tuple[str, ...] = row(types.path, "print how two results differ: options, PSNR and SSIM of their "
        "frames; with --output also write both side by side", metavar="FILE FILE", about_run=True,
        answers=True, set_by_chain=True, repeat=True, words=2, default=())
    sheet: str | None = row(types.folder, "arrange the results of a folder by --rows and --columns in one "
        "picture, or in one video with --output X.mp4", metavar="DIR", about_run=True, answers=True,
        set_by_chain=True)
    rows: str | None = row(types.word, "option whose values are the rows of --sheet", metavar="OPTION",
        about_run=True, set_by_chain=True, needs=A_SHEET)
    columns: str | None = row(types.word, "option whose values are the columns of --sheet", metavar="OPTION",
        about_run=True, set_by_chain=True, needs=A_SHEET)
    report: str | None = row(types.folder, "write one web page over all results of a folder, and results.csv",
        metavar="DIR", about_run=True, answers=True, set_by_chain=True)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Watching:
    """Where a program sees how far the run is."""

    status: str | None = row(types.file_path,
        "keep a JSON file that says how far the run is; a list of videos has one beside them anyway",
        metavar="FILE.json", about_run=True)
# fmt: on
