"""What is meant by flags that other programs have: by meaning first, then by spelling."""

from videogen.errors import nearest
from videogen.tasks.options import FLAG_NAMES

# fmt: off
SYNONYMS: dict[str, str] = {
    word: advice
    for advice, words in {
        "--num_inference_steps":
            "step steps num_steps sampling_steps inference_step denoising_steps nfe iterations",
        "--guidance_scale_img": "cfg_img image_cfg img_cfg image_guidance_scale",
        "--guidance_scale_audio": "cfg_audio audio_cfg",
        "--guidance_scale":
            "cfg guidance cfg_value cfg_weight scale guide_scale text_cfg_scale guidance_strength",
        "--quantize int8, int4 or float8, or --low_vram":
            "quantization quant fp8 float8 int8 int4 q8 nf4 load_in_8bit load_in_4bit torchao bitsandbytes",
        "--transformer FILE": "gguf unet dit checkpoint transformer_path diffusion_model",
        "--low_vram, or --offload":
            "vram lowvram medvram memory max_memory low_memory save_memory blocks_to_swap block_swap",
        "--offload": "cpu_offload model_offload enable_model_cpu_offload sequential_offload offload_to_cpu",
        "--attention_backend":
            "attention attn attn_mode attn_implementation attention_mode sdpa flash_attn flash_attention "
            "sage sage_attention sageattn xformers use_flash_attn",
        "--jobs FILE (--roll_prompts FILE has a prompt for every segment of one video)":
            "prompt_file prompts_file prompts prompt_list prompt_path input_file csv batch_file from_file "
            "job batch_prompts",
        "--seed 1,2,3 for several videos of a prompt, or --jobs FILE for a list":
            "batch n num_samples num_outputs num_images samples count repeat repeats "
            "num_videos_per_prompt batch_count copies variations",
        "--num_frames, or --duration":
            "frames length num_frame n_frames frame_count nframes video_frames max_frames total_frames "
            "frame_number",
        "--duration": "seconds secs time num_seconds video_duration",
        "--negative_prompt": "negative neg n_prompt uncond negative_text neg_text",
        "--output":
            "out o output_path output_file outfile save filename file save_as name output_name "
            "output_video",
        "--output_dir": "output_folder outputs out_dir folder save_dir results result_dir",
        "--device (cuda:0 is the first GPU)": "gpu gpu_id cuda gpu_ids device_id cpu mps",
        "torchrun --nproc_per_node=N generate_video.py ... --use_usp":
            "gpus num_gpus n_gpus nproc multi_gpu world_size distributed usp sequence_parallel parallel "
            "fsdp",
        "--dtype": "fp16 bf16 fp32 half float16 bfloat16 float32 torch_dtype weight_dtype model_dtype",
        "--resolution, --size, or --height with --width":
            "res dimensions aspect_ratio aspect ratio image_size video_resolution",
        "--width": "w",
        "--height": "h",
        "--resolution (there is no upscaler here; 720P is the largest class)":
            "upscale upscaler hires hd super_resolution sr enhance_resolution",
        "--fps (there is no interpolation here)": "interpolate interpolation rife frame_interpolation",
        "--fps": "framerate frame_rate rate",
        "--input_image":
            "i img image_path first_frame start_image init_image input_img i2v_image init_img start_frame "
            "source_image picture",
        "--end_image": "last_frame last_image end_frame tail_image tail",
        "--input_video": "vid v2v init_video source_video video_file input_vid",
        "--input_audio": "speech wav audio_path audio_file sound voice",
        "--ref_imgs":
            "ref reference refs ref_images reference_images ref_image reference_image subject ref_img "
            "references",
        "--model_id":
            "checkpoint ckpt model_path model_name weights pretrained repo repo_id "
            "pretrained_model_name_or_path model_dir checkpoint_path checkpoint_dir path m modle",
        "--task_type (see --list_tasks)":
            "mode t type pipeline task_name t2v i2v txt2vid img2vid text2video image2video extend extension "
            "avatar talking lipsync",
        "--prompt": "text p caption description",
        "--lora": "loras lora_weights adapter lora_name lora_file",
        "--lora PATH:SCALE": "lora_strength lora_weight lora_alpha lora_multiplier",
        "--sample_solver": "sampler scheduler solver noise_scheduler sampling_method",
        "--shift": "time_shift timestep_shift flow discrete_flow_shift",
        "--compile": "torch_compile compiled use_compile",
        "--cache, or --teacache":
            "tea_cache teacaching magcache mag_cache first_block_cache fbcache taylorseer easycache",
        "--vae_tiling": "tiling tiled tiled_vae tile vae_tile enable_vae_tiling vae_slicing tile_size",
        "--prompt_enhancer":
            "enhance enhance_prompt rewrite rewrite_prompt prompt_extend extend_prompt upsample_prompt "
            "prompt_rewrite enhancer",
        "--overwrite": "force f yes y replace clobber",
        "--resume": "skip skip_existing continue restart resume_from",
        "--dry_run": "dry plan check test validate simulate dryrun estimate",
        "--verbose": "debug log_level loglevel trace",
        "--quiet": "silent q no_progress",
        "--list_tasks": "list tasks list_models models show_tasks",
        "--env": "info environment sysinfo doctor",
        "--config FILE.yaml": "cfg_file settings yaml config_file conf params",
        "--seed": "random_seed manual_seed rng noise_seed s",
        "--overlap_history": "overlap overlap_frames",
        "--preset lightning": "lightning lightx2v turbo distill distilled fast few_steps",
        "--output NAME.mp4 (.mov, .webm, .mkv, .gif, .npy, or a folder of PNGs)":
            "format output_format container gif mp4 webm png extension_name",
        "--codec": "vcodec encoder prores vp9 h264 ffv1",
        "--crf (lower is better)": "quality bitrate video_quality",
        "--height and --width; else the shape follows the input": "portrait landscape vertical orientation",
        "--ulysses_degree, with --use_usp under torchrun": "ulysses sp_size sp_degree",
        "--ring_degree, with --use_usp under torchrun": "ring ring_size",
        "--keep_parts": "keep keep_segments keep_temp",
        "--help all": "usage help_all full_help",
    }.items()
    for word in words.split()
}
# fmt: on


SHORTEST = 2  # letters; shorter words are like everything
# Words behind a name that say no more than the name.
TAILS = (
    *("path", "file", "name", "value", "id", "info", "out", "output", "model", "wh", "scale", "strength"),
    *("weight", "low", "high", "option", "mode"),
)


def hint(flag: str) -> str | None:
    """Return what an unknown flag or key may have meant, as advice; None where nothing is like it."""
    name = flag.lstrip("-").lower().replace("-", "_")
    dashes = "--" if flag.startswith("-") else ""
    head, _, tail = name.rpartition("_")
    for meant in (name, head) if tail in TAILS else (name,):
        if advice := SYNONYMS.get(meant):
            return f"use {advice}"
        if meant in FLAG_NAMES:
            return f"nearest {dashes}{meant}"
    if len(name) <= SHORTEST:
        return None
    if close := nearest(name, FLAG_NAMES):
        return f"nearest {dashes}{close}"
    close = nearest(
        name, (word for word in SYNONYMS if len(word) > SHORTEST and abs(len(word) - len(name)) < 3)
    )
    return f"use {SYNONYMS[close]}" if close else None
