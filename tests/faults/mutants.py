"""What ``mutate`` tries: modules and the fast tests that hold them; and changes that change nothing."""

DIFFUSION = (
    "tests/diffusion/test_solvers.py",
    "tests/diffusion/test_lcm.py",
    "tests/diffusion/test_parts.py",
)
RANKS = ("tests/parallel/test_degrees.py",)
TESTS = {
    "videogen/diffusion/sampling.py": DIFFUSION,
    "videogen/diffusion/guidance.py": DIFFUSION,
    "videogen/diffusion/conditioning.py": DIFFUSION,
    "videogen/tasks/sizes.py": ("tests/tasks/test_sizes.py", "tests/diffusion/test_parts.py"),
    "videogen/results/resume_store.py": ("tests/results/test_resume_store.py",),
    "videogen/results/output_paths.py": ("tests/results/test_output_paths.py",),
    "videogen/results/publishing.py": ("tests/results/test_publishing.py", "tests/faults/test_publishing.py"),
    "videogen/results/output_locks.py": ("tests/results/test_output_locks.py",),
    "videogen/distributed.py": RANKS,
    "videogen/files.py": ("tests/test_files.py",),
    "videogen/pipelines/color.py": ("tests/pipelines/test_color.py",),
    "videogen/runtime/token_sharding.py": RANKS,
}

# "FILE": {"LINE: CHANGE": reason}; the line is only where to look.
EQUIVALENT: dict[str, dict[str, str]] = {}
