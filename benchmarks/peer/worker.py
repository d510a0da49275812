"""A process that holds one side of one case and measures it on demand.

Run by run.py: `python worker.py SIDE CASE ARGUMENTS`, which are a module, its function and its arguments as JSON. It
prints a line of JSON when it is ready; each line on stdin starts a measurement, answered by another line; closing stdin
ends it. Everything else that libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path


def peak_memory() -> float:
    """Return the peak resident memory of this process in MB (Linux)."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000


def main() -> None:
    """Prepare the case, then measure until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    side, case, parameters = sys.argv[1:]
    measure = getattr(importlib.import_module(side), case)(**json.loads(parameters))
    print(json.dumps({"ready": True}), file=answers)
    for _ in sys.stdin:
        count, seconds = measure()
        print(json.dumps({"count": count, "seconds": seconds, "memory": peak_memory()}), file=answers)


if __name__ == "__main__":
    main()
