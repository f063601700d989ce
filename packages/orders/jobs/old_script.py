"""A script that was there before: it parses its arguments, and it leaves with sys.exit()."""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str]) -> None:
    """End as the arguments say."""
    parser = argparse.ArgumentParser(prog="old_script")
    parser.add_argument("--leave-with", default="0")
    wish = parser.parse_args(argv).leave_with
    print(f"leaving with {wish}")
    sys.exit(int(wish) if wish.isdigit() else wish)


JOB = (main, "An old script that leaves with sys.exit()")

if __name__ == "__main__":
    main(sys.argv[1:])
