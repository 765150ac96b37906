"""What ``mutate`` tries: modules and the fast tests that hold them; and changes that change nothing."""

DIFFUSION = tuple(f"tests/diffusion/test_{name}.py" for name in ("solvers", "lcm", "parts", "waiting"))
RANKS = ("tests/parallel/test_degrees.py",)
TESTS = {
    "videogen/diffusion/sampling.py": DIFFUSION,
    "videogen/diffusion/guidance.py": DIFFUSION,
    "videogen/diffusion/conditioning.py": DIFFUSION,
    "videogen/tasks/sizes.py": ("tests/tasks/test_sizes.py", "tests/diffusion/test_parts.py"),
    "videogen/results/resume_store.py": ("tests/results/test_resume_store.py",),
    "videogen/results/output_paths.py": ("tests/results/test_output_paths.py",),
    "videogen/results/writable.py": ("tests/results/test_writable.py",),
    "videogen/results/publishing.py": ("tests/results/test_publishing.py",),
    "videogen/results/output_locks.py": ("tests/results/test_output_locks.py",),
    "videogen/distributed.py": RANKS,
    "videogen/files.py": ("tests/test_files.py", "tests/test_file_locks.py", "tests/test_files_json.py"),
    "videogen/pipelines/color.py": ("tests/pipelines/test_color.py",),
    "videogen/runtime/token_sharding.py": RANKS,
}

# FILE: {CHANGE: why it changes nothing}.
CURVE = "the two pieces of the curve meet there"
EQUIVALENT: dict[str, dict[str, str]] = {
    "videogen/diffusion/sampling.py": {
        "return_dict=False  ->  return_dict=True": "item 0 of diffusers' outputs is the same",
        "strict=True  ->  strict=False": "rows have equal lengths",
        "row.indices[frames.start] - 1  ->  row.indices[frames.start] - 2": "solvers count their own steps",
    },
    "videogen/tasks/sizes.py": {
        "height is not None and width is not None"
        "  ->  height is not None or width is not None": "there are both or none",
        "round(options.duration * fps, 6)  ->  round(options.duration * fps, 7)": "errors are small",
    },
    "videogen/pipelines/color.py": {
        "torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)"
        "  ->  torch.where(rgb >= 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)": CURVE,
        "torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 4 / 29)"
        "  ->  torch.where(xyz >= 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 4 / 29)": CURVE,
        "torch.where(roots > 0.2068966, roots ** 3, (roots - 4 / 29) / 7.787)"
        "  ->  torch.where(roots >= 0.2068966, roots ** 3, (roots - 4 / 29) / 7.787)": CURVE,
        "torch.where(linear > 0.0031308, curved, 12.92 * linear)"
        "  ->  torch.where(linear >= 0.0031308, curved, 12.92 * linear)": CURVE,
    },
    "videogen/runtime/token_sharding.py": {
        "stable=True  ->  stable=False": "only padding has equal ids, and is cut off",
    },
    "videogen/results/output_paths.py": {
        "stamp=''  ->  stamp='x'": "only default names have it, and they are never looked for",
    },
    "videogen/files.py": {
        "os.open(path, os.O_RDONLY | os.O_CLOEXEC)"
        "  ->  os.open(path, os.O_RDONLY & os.O_CLOEXEC)": "Python always closes on exec",
        "return os.path.samestat(os.fstat(descriptor), path.lstat())"
        "  ->  return os.path.samestat(path.lstat(), os.fstat(descriptor))": "the same question",
        "locked is None and time.time() - path.lstat().st_mtime > STALE_AFTER"
        "  ->  locked is None and time.time() - path.lstat().st_mtime >= STALE_AFTER": "never equal",
        "LARGEST_JSON / 1000000.0  ->  LARGEST_JSON / 1000001.0": "it is rounded",
        "missing_ok=True  ->  missing_ok=False": "no error is told",
        "limit + 1  ->  limit + 2": "one byte too many is enough",
    },
    "videogen/distributed.py": {
        "os.environ.get(name, '')  ->  os.environ.get(name, 'x')": "neither is a number",
    },
}
