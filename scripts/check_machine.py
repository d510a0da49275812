"""Reports in one line what this machine lacks for an installation; silent if nothing is missing.

The Makefile runs it before anything is downloaded, with whatever Python it found, so it must parse on
old ones (even 2.7) and imports the standard library only. Exit status 1 with the line, else 0.

Usage: python scripts/check_machine.py [GIGABYTES_NEEDED]
"""

import os
import shutil
import sys
import tempfile

OLDEST, TOO_NEW = (3, 11), (3, 14)
MEND = "install Python 3.11, 3.12 or 3.13 and give it: make PYTHON=/path/to/python3.11 ..."


def problem(gigabytes):
    """The first thing that is missing and what to do about it, or None."""
    version = sys.version_info
    found = "%s is Python %d.%d.%d" % (sys.executable or "this", version[0], version[1], version[2])
    if not OLDEST <= version[:2] < TOO_NEW:
        return "%s, but 3.11, 3.12 or 3.13 is needed: %s" % (found, MEND)
    for module in ("venv", "ensurepip"):
        try:
            __import__(module)
        except ImportError:
            mend = "install it (Debian, Ubuntu: apt install python%d.%d-venv) and run again" % version[:2]
            return "%s, but its standard module %s is missing: %s" % (found, module, mend)
    # pip unpacks into this folder and downloads into the temporary one, about a sixth of it.
    for folder, need in ((os.getcwd(), gigabytes), (tempfile.gettempdir(), gigabytes / 6)):
        free = shutil.disk_usage(folder).free / 1e9
        if free < need:
            mend = "free some and run the command again"
            if folder != os.getcwd():
                mend = "free some, or set TMPDIR to a folder on a larger disk, and run again"
            return "%s has %.1f GB of free disk, but %.1f GB are needed: %s" % (folder, free, need, mend)
    return None


if __name__ == "__main__":
    lack = problem(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0)
    if lack:
        sys.exit("error: " + lack)
