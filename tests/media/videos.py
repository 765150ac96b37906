"""Small videos of many kinds, made with ffmpeg."""

import subprocess
from pathlib import Path

import imageio_ffmpeg

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=24:duration=1.5")
X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "12")
X265 = ("-c:v", "libx265", "-g", "12", "-x265-params", "log-level=error")
MPEG4 = ("-c:v", "mpeg4", "-q:v", "3", "-g", "12")
VP9 = ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime", "-g", "12")
TONE = ("-f", "lavfi", "-i", "sine=duration=1.5")
UNEVEN = ("-vf", "select='lt(n,9)+not(mod(n,3))'", "-fps_mode", "vfr")
BT709 = ("-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709")

# What ffmpeg makes each file with; {name} is another file.
FILES: dict[str, tuple[str, ...]] = {
    "b_frames.mp4": (*PICTURE, *X264, "-bf", "3"),
    "b_frames.mkv": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.mov": ("-i", "{b_frames.mp4}", *TONE, "-c:v", "copy"),
    "b_frames.avi": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.ts": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.h264": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "b_frames.flv": ("-i", "{b_frames.mp4}", "-c", "copy"),
    "fragments.mp4": ("-i", "{b_frames.mp4}", "-c", "copy", "-movflags", "frag_keyframe+empty_moov"),
    "open_gop.mp4": (*PICTURE, *X264, "-bf", "3", "-x264-params", "open-gop=1:keyint=12:scenecut=0"),
    "open_gop.mkv": ("-i", "{open_gop.mp4}", "-c", "copy"),
    "refresh.mp4": (*PICTURE, *X264, "-x264-params", "intra-refresh=1:keyint=12:bframes=0"),
    "hevc.mp4": (*PICTURE, *X265),
    "hevc_10bit.mkv": (*PICTURE, *X265, "-pix_fmt", "yuv420p10le"),
    "10bit.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv420p10le"),
    "uneven.mp4": (*PICTURE, *X264, *UNEVEN),
    "uneven.mkv": ("-i", "{uneven.mp4}", "-c", "copy"),
    "mpeg4.avi": (*PICTURE, *MPEG4),
    "mpeg4_b.avi": (*PICTURE, *MPEG4, "-bf", "2"),
    "mpeg4_odd.avi": (*PICTURE, *MPEG4, "-vf", "scale=97:65"),
    "vp9.webm": (*PICTURE, *TONE, *VP9, "-c:a", "libopus"),
    "vp9_odd.webm": (*PICTURE, *VP9, "-vf", "scale=97:65"),
    "rgb.mkv": (*PICTURE, "-c:v", "libx264rgb", "-g", "12"),
    "422.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv422p"),
    "bt709.mp4": (*PICTURE, *X264, *BT709),
    "bt709_422.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv422p", *BT709),
    "bt709_full_range.mp4": (*PICTURE, *X264, "-pix_fmt", "yuvj420p", *BT709),
    "bt601.mp4": (*PICTURE, *X264, "-vf", "scale=out_color_matrix=bt601", "-colorspace", "smpte170m"),
    "444.mp4": (*PICTURE, *X264, "-pix_fmt", "yuv444p"),
    "vp9_444.webm": (*PICTURE, *VP9, "-pix_fmt", "yuv444p"),
    "full_range.mp4": (*PICTURE, *X264, "-pix_fmt", "yuvj420p"),
    "narrow.mp4": (*PICTURE, *X264, "-vf", "scale=48:32"),
    "interlaced.mp4": (*PICTURE, *X264, "-flags", "+ilme+ildct"),
    "turned.mp4": ("-display_rotation", "90", "-i", "{b_frames.mp4}", "-c", "copy"),
    # From the keyframe before 0.8 s on: first frames are hidden by an edit list, or cannot be decoded.
    "cut.mp4": ("-ss", "0.8", "-i", "{b_frames.mp4}", "-c", "copy"),
    "cut_open_gop.mp4": ("-ss", "0.8", "-i", "{open_gop.mp4}", "-c", "copy"),
    "cut_open_gop.mkv": ("-ss", "0.8", "-i", "{hevc.mp4}", "-c", "copy"),
    "still.gif": (*PICTURE, "-frames:v", "1"),
}


def make(folder: Path, name: str, *words: str) -> Path:
    """Return the path of one of FILES, or of whatever ffmpeg makes of the words given."""
    path = folder / name
    if not path.exists():
        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        words = [str(make(folder, w[1:-1])) if w.startswith("{") else w for w in words or FILES[name]]
        subprocess.run([ffmpeg, "-y", "-loglevel", "error", *words, str(path)], check=True)
    return path
