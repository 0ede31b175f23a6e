"""`python -m steplog`: the same as the command `steplog`."""

from __future__ import annotations

from steplog.cli import main

if __name__ == "__main__":
    main()
