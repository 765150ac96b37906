"""Mutation testing: ``python -m tests.faults.mutate FILE`` changes a module in one place, and runs its tests.

Every change of ``changes.py`` is tried: another operator, comparison or number, a condition negated, a
statement, a ``with`` or a ``not`` left out, two arguments swapped. A change that no test of ``TESTS``
(``mutants.py``) notices is a survivor, and is printed. Texts with a space in them are sentences for people
and stay; so do annotations and decorators.

Tests are collected once. Each change is tried in a forked child, on the tests that enter its function, and
only the code of that function is replaced; for a constant or a default, its value. After a change in the body
of a class everything is imported anew. Survivors that change nothing are in ``EQUIVALENT``.
"""

import argparse
import ast
import gc
import importlib
import importlib.abc
import importlib.util
import inspect
import os
import random
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

from tests.conftest import ROOT
from tests.faults.changes import CLASS, MODULE, Mutant, mutants
from tests.faults.mutants import EQUIVALENT, TESTS

SLOWEST = 20.0  # seconds; or five times what all tests take: a change that takes so long is noticed


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code objects in a code object."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes(constant)


def _take_values(code: CodeType, module: ModuleType, functions: Mapping[tuple, list[FunctionType]]) -> None:
    """Execute changed code, and give its constants and defaults to the module."""
    made = {"__name__": module.__name__, "__file__": module.__file__}
    exec(code, made)
    for name, value in made.items():
        if isinstance(value, type):
            new = list(vars(value).values())
        elif isinstance(value, FunctionType):
            new = [value]
        else:
            new = []
            setattr(module, name, value)
        for function in map(inspect.unwrap, new):
            if isinstance(function, FunctionType):
                place = function.__code__.co_qualname, function.__code__.co_firstlineno
                for old in functions.get(place, ()):
                    old.__defaults__, old.__kwdefaults__ = function.__defaults__, function.__kwdefaults__


class _Source(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module from a changed tree."""

    def __init__(self, name: str, file: Path, tree: ast.Module) -> None:
        self.name, self.file, self.tree = name, file, tree

    def find_spec(self, name, path, target=None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.file, loader=self)

    def exec_module(self, module):
        exec(compile(self.tree, str(self.file), "exec"), module.__dict__)


class Trial:
    """A pytest plugin that runs the tests for every mutant instead of once."""

    def __init__(self, file: Path, sample: int | None, verbose: bool) -> None:
        self.file, self.sample, self.verbose = file, sample, verbose
        self.name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        self.survivors: list[Mutant] = []
        self.tried = self.equivalent = self.hung = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        importlib.import_module(self.name)
        session.config._tmp_path_factory.getbasetemp()
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter._tw._file = Path(os.devnull).open("w")  # noqa: SIM115
        entered, self.seconds = self._baseline(session)
        functions = defaultdict(list)
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename == str(self.file):
                functions[thing.__code__.co_qualname, thing.__code__.co_firstlineno].append(thing)
        gc.collect()
        gc.freeze()  # children share what is there
        every = list(mutants(self.file.read_text()))
        known = EQUIVALENT.get(str(self.file.relative_to(ROOT)), {})
        self.equivalent = sum(mutant.what in known for mutant in every)
        every = [mutant for mutant in every if mutant.what not in known]
        if self.sample is not None and len(every) > self.sample:
            every = sorted(random.Random(1).sample(every, self.sample), key=lambda mutant: mutant.line)
        for place in {mutant.place for mutant in every}:
            unchanged = Mutant(place, "nothing", ast.parse(self.file.read_text()), place)
            items = self._items(session, place, entered)
            assert not self._noticed(session, unchanged, items, functions), f"line {place} fails unchanged"
        for mutant in every:
            self.tried += 1
            items = self._items(session, mutant.place, entered)
            if not items or not self._noticed(session, mutant, items, functions):
                self.survivors.append(mutant)
                tell(f"{self.file.name}:{mutant}" + ("" if items else "  (never run)"))
            elif self.verbose:
                tell(f"    killed {mutant}")
        return True

    def _items(self, session, place, entered):
        if place in (MODULE, CLASS):
            return session.items
        return [item for item in session.items if place in entered[item.nodeid]]

    def _baseline(self, session):
        """Return the first lines of the functions that each test enters, and the seconds of all tests."""
        log = session.config._tmp_path_factory.getbasetemp() / "entered"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        began = time.monotonic()
        code = self._fork(lambda: self._trace(session, descriptor), 600)
        assert code == 0, "the tests fail without a change"
        entered = defaultdict(set)
        for line in log.read_text().splitlines():
            first, test = line.split(" ", 1)
            entered[test].add(int(first))
        return entered, time.monotonic() - began

    def _trace(self, session, descriptor):
        file, seen, now = str(self.file), set(), [""]

        def trace(frame, event, arg):
            if frame.f_code.co_filename == file:
                entry = f"{frame.f_code.co_firstlineno} {now[0]}\n"
                if entry not in seen:
                    seen.add(entry)
                    os.write(descriptor, entry.encode())

        class Follower:
            @pytest.hookimpl(tryfirst=True)
            def pytest_runtest_protocol(self, item):
                now[0] = item.nodeid
                threading.settrace(trace)
                sys.settrace(trace)

        session.config.pluginmanager.register(Follower())
        return self._run(session, session.items)

    def _noticed(self, session, mutant, items, functions):
        def child():
            code = compile(mutant.tree, str(self.file), "exec")
            if mutant.place == CLASS:
                return self._anew(session, mutant)
            if mutant.place == MODULE:
                _take_values(code, sys.modules[self.name], functions)
            else:
                for new in codes(code):
                    for function in functions[new.co_qualname, new.co_firstlineno]:
                        function.__code__ = new
            return self._run(session, items)

        return self._fork(child, max(SLOWEST, 5 * self.seconds)) != 0

    def _run(self, session, items):
        from _pytest.main import pytest_runtestloop

        session.items[:] = items
        try:
            pytest_runtestloop(session)
        except session.Failed:
            return 1
        return 1 if session.testsfailed else 0

    def _anew(self, session, mutant):
        for name in list(sys.modules):
            if name.split(".")[0] in ("videogen", "tests") or name.startswith("test_"):
                del sys.modules[name]
        sys.meta_path.insert(0, _Source(self.name, self.file, mutant.tree))
        return int(pytest.main(arguments(session.config.args)))

    def _fork(self, run, seconds):
        """Return the exit code of a child; of one that takes too long, another than 0."""
        if not (child := os.fork()):
            code = 70
            try:
                os.setpgid(0, 0)
                null = os.open(os.devnull, os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
                code = run()
            finally:
                os._exit(code)
        end = time.monotonic() + seconds
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                self.hung += 1
                return -1
            time.sleep(0.005)


def tell(line):
    print(line, flush=True)  # noqa: T201


def arguments(tests):
    options = ("-x", "-q", "-n", "0", "-s", "-p", "no:cacheprovider", "-p", "no:timeout", "-W", "ignore")
    return [*options, *tests]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", default=list(TESTS), help="modules; without one all of TESTS")
    parser.add_argument("--sample", type=int, help="try so many mutants of a file, drawn with seed 1")
    parser.add_argument("--tests", nargs="+", help="other tests than those of TESTS")
    parser.add_argument("--verbose", action="store_true", help="print those that are killed as well")
    options = parser.parse_args()
    os.chdir(ROOT)
    worst = 0.0
    for name in options.files:
        if len(options.files) > 1 and (
            child := os.fork()
        ):  # modules are imported and tests collected for each
            worst = max(worst, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) / 100)
            continue
        trial = Trial(ROOT / name, options.sample, options.verbose)
        pytest.main(arguments(options.tests or TESTS[name]), plugins=[trial])
        left = len(trial.survivors)
        share = left / max(1, trial.tried)
        what = f"{trial.tried} mutants, {left} survive ({share:.1%}), {trial.hung} never end"
        tell(f"{name}: {what}; {trial.equivalent} more change nothing")
        worst = max(worst, share)
        if len(options.files) > 1:
            os._exit(round(100 * share))
    return int(worst >= 0.1)


if __name__ == "__main__":
    os._exit(main())  # libraries have much to say at a normal exit
