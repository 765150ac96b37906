"""What only a real GPU can show, in one run of twelve minutes; ``first_hour.sh`` calls it.

    python -m benchmarks.first_hour                  # all checks, a table in benchmarks/FIRST_HOUR.md
    python -m benchmarks.first_hour --check decode   # one of them, its rows as JSON
    python -m benchmarks.first_hour --dry            # tiny sizes, on the pretend card of tests/simulated

Every check is a process of its own with a time limit; one that fails or hangs does not stop the others, and
rows that it wrote before count. No published weights are needed: networks have their full size and random
weights.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = "FIRST_HOUR.md"
LIMIT = 560  # seconds for all checks together; a lent machine may end a command after 600
PATIENCE = 3  # times as long where a CPU does the work
START = 15  # seconds that a process takes to import everything; a check with less left is not begun


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``good`` is None where there is nothing to compare with."""

    what: str
    found: str
    wanted: str = ""
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """Checks in order of importance: a function of ``first_hour_checks``, and its seconds."""

    name: str
    seconds: int


CHECKS = (
    Check("environment", 30),
    Check("attention", 80),
    Check("fused_kernels", 40),
    Check("decode", 60),
    Check("forward", 120),
    Check("memory", 170),
    Check("gpu_tests", 150),
    Check("float8_products", 50),
    Check("compiled", 80),
)


def run_check(name: str, *, dry: bool) -> None:
    """Run one check in this process and print its rows as JSON, one a line."""
    import torch  # noqa: PLC0415 - not for the process that only starts others

    from benchmarks import first_hour_checks as checks  # noqa: PLC0415

    if dry:
        from tests.simulated.card import pretend_card  # noqa: PLC0415
    size = checks.TINY if dry else checks.FULL
    with pretend_card() if dry else nullcontext(), torch.no_grad():
        if name in checks.AS_IN_A_RUN:
            checks.prepare()
        function: Callable[[checks.Size], Iterator[Row]] = getattr(checks, name)
        for row in function(size):
            print(json.dumps(asdict(row)), flush=True)


def outcome(check: Check, seconds: float, *, dry: bool) -> list[Row]:
    """Run one check in a process of its own; what it could not finish is a row too."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.first_hour",
        "--check",
        check.name,
        *(["--dry"] if dry else []),
    ]
    started = time.monotonic()
    rows: list[Row] = []
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
            ended = "" if process.returncode == 0 else _last_line(errors)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, _ = process.communicate()
            ended = f"not finished in {seconds:.0f} s"
    rows += [Row(**json.loads(line)) for line in out.splitlines() if line.startswith('{"what"')]
    if ended:
        rows.append(Row(check.name, ended, "to finish", good=False))
    rows.append(Row("seconds", f"{time.monotonic() - started:.0f}"))
    return rows


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "ended without a word"


def table(results: dict[str, list[Row]]) -> Iterator[str]:
    """Write the results in markdown."""
    yield "# The first hour on a GPU"
    yield ""
    yield "Written by `benchmarks/first_hour.sh`: what simulation cannot show (see tests/simulated)."
    yield ""
    yield "| check | what | found | wanted | |"
    yield "|---|---|---|---|---|"
    verdicts = {None: "", True: "ok", False: "**no**"}
    for name, rows in results.items():
        for row in rows:
            cells = (name, row.what, row.found, row.wanted, verdicts[row.good])
            yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def place_of_table() -> Path:
    """Return where the table goes: the folder that OUT names, or this one."""
    return Path(os.environ.get("OUT") or Path(__file__).parent) / TABLE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", choices=[check.name for check in CHECKS])
    parser.add_argument("--only", help="checks to run, separated by commas")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    if args.check:
        run_check(args.check, dry=args.dry)
        return 0
    chosen = [check for check in CHECKS if not args.only or check.name in args.only.split(",")]
    ends = time.monotonic() + LIMIT * (PATIENCE if args.dry else 1)
    results: dict[str, list[Row]] = {}
    for check in chosen:
        left = ends - time.monotonic()
        results[check.name] = (
            outcome(check, min(left, check.seconds * (PATIENCE if args.dry else 1)), dry=args.dry)
            if left > START
            else [Row(check.name, "no time left", "to run", good=False)]
        )
        place_of_table().write_text("\n".join(table(results)) + "\n", encoding="utf-8")  # so far
    print(place_of_table().read_text(encoding="utf-8"))
    return int(any(row.good is False for rows in results.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
