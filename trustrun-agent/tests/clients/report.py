"""How the client programs say what happened: see README.md."""

import errno
import json
import sys
import time

START = time.monotonic()
CANNOT = {"EPROTONOSUPPORT", "EAFNOSUPPORT", "ESOCKTNOSUPPORT", "ENOPROTOOPT", "ENODEV", "ENOSYS"}


def done(ok, **facts):
    """Prints the line and ends the program."""
    took = round((time.monotonic() - START) * 1000, 1)
    print(json.dumps({"ok": ok, **facts, "ms": took}), flush=True)
    sys.exit(0 if ok else 1)


def failed(error, **facts):
    """Ends the program because of an exception."""
    name = errno.errorcode.get(getattr(error, "errno", None) or 0)
    if name in CANNOT:
        print(json.dumps({"ok": False, "errno": name, "error": str(error)}), flush=True)
        sys.exit(3)
    done(False, errno=name, error=f"{type(error).__name__}: {error}", **facts)


def usage(text):
    """Ends the program because it was called wrongly."""
    print(text, file=sys.stderr)
    sys.exit(2)
