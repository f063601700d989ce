"""``python -m airbridge.identity``, which is also the program ``airbridge``."""

from __future__ import annotations

from airbridge.identity._cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
