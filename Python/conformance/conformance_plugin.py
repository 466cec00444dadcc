"""The pytest plugin of `run.py`: which cases run, what each came to, written line by line so that a crash loses one case at most.

Environment: FIC_OUT the file of results, FIC_SEED, FIC_CASES cases of a file, FIC_DEADLINE seconds since the epoch after which no
case begins, FIC_CASE_LIMIT seconds for a case, FIC_SKIP a file of cases not to run again, FIC_CPU=1 to run on the CPU what the tests put on "cuda".
"""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

_out = open(os.environ["FIC_OUT"], "a", buffering=1)
_deadline = float(os.environ.get("FIC_DEADLINE", "inf"))
_cpu = os.environ.get("FIC_CPU") == "1"

if _cpu:
    import cpu_mode

    cpu_mode.enable()


def _write(**record):
    _out.write(json.dumps(record) + "\n")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session, config, items):
    """A random subset of each file, spread evenly over its functions, always the same for the same seed."""
    cases, seed = int(os.environ.get("FIC_CASES", "0")), os.environ.get("FIC_SEED", "0")
    skip = set()
    if os.environ.get("FIC_SKIP"):
        with open(os.environ["FIC_SKIP"]) as file:
            skip = {line.rstrip("\n") for line in file}
    files: dict[str, dict[str, list]] = {}
    for item in items:
        files.setdefault(item.nodeid.split("::")[0], {}).setdefault(item.nodeid.split("[")[0], []).append(item)
    chosen = []
    for file, functions in files.items():
        groups = list(functions.values())
        total = sum(len(group) for group in groups)
        _write(file=file, collected=total)
        for group in groups:
            random.Random(seed + group[0].nodeid.split("[")[0]).shuffle(group)
        if cases and total > cases:
            picked, depth = [], 0
            while len(picked) < cases and any(depth < len(group) for group in groups):
                picked += [group[depth] for group in groups if depth < len(group)]
                depth += 1
            chosen += picked[:max(cases, len(groups))]
        else:
            chosen += [item for group in groups for item in group]
    items[:] = [item for item in chosen if item.nodeid not in skip]


def pytest_runtest_logstart(nodeid, location):
    _write(start=nodeid)


class CaseTimeLimit(BaseException):  # so that no test catches it
    """A case took longer than FIC_CASE_LIMIT seconds."""


def _too_long(*_):
    raise CaseTimeLimit(f"longer than {_case_limit} s")


_case_limit = int(os.environ.get("FIC_CASE_LIMIT", "60"))
signal.signal(signal.SIGALRM, _too_long)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    signal.alarm(_case_limit)
    try:
        return (yield)
    finally:
        signal.alarm(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.excinfo is not None and not report.skipped:
        item._fic = {
            "types": [kind.__name__ for kind in call.excinfo.type.__mro__], "message": str(call.excinfo.value)[:2000],
            "where": f"{call.excinfo.traceback[-1].path}:{call.excinfo.traceback[-1].lineno + 1}",
        }
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        record = {"case": item.nodeid, "outcome": report.outcome, "seconds": round(call.duration, 3)}
        if report.skipped and isinstance(report.longrepr, tuple):
            record["message"] = report.longrepr[2]
        record.update(getattr(item, "_fic", {}))
        _write(**record)
        if _is_lost(record):
            # Every later call of this process would fail for this one's sake.
            _out.flush()
            os._exit(3)
    return report


def _is_lost(record):
    text = record.get("message", "")
    return record["outcome"] == "failed" and any(
        part in text for part in (
            "illegal memory access", "CUDA_ERROR_ILLEGAL_ADDRESS", "unspecified launch failure", "device-side assert",
            "misaligned address", "CUDA_ERROR_LAUNCH_FAILED", "context is lost"))


def pytest_collectreport(report):
    if report.failed:
        _write(collect=report.nodeid, message=str(report.longrepr)[-2000:])


def pytest_runtest_logfinish(nodeid, location):
    if not _cpu:
        import torch

        # The processes share one GPU.
        if torch.cuda.is_available() and torch.cuda.memory_reserved() > 4 << 30:
            torch.cuda.empty_cache()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if time.time() > _deadline:
        item.session.shouldstop = "the time for this file is over"
        _write(stopped=item.nodeid)
        return True
    return None
