"""Runs inside the control-plane image: imports a release as the DAG processor does. Never imported here.

Standard input is a tar archive of the release; the one line on the real standard output is what was found.
Whatever the files print goes to standard error.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
import tarfile

__all__ = ["main"]

_ROOT = "/tmp/release"  # noqa: S108  (a tmpfs that this container alone has)


def main() -> None:
    """Unpack, import, report."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for entry in archive:  # regular files only, with names that were looked at before
            content = archive.extractfile(entry)
            if content is not None:
                file = pathlib.Path(_ROOT, entry.name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read())
    from airflow.models.dagbag import DagBag

    # As the DAG processor and the task runner have it.
    sys.path.append(_ROOT)
    bag = DagBag(
        dag_folder=_ROOT, include_examples=False, safe_mode=True, load_op_links=False, bundle_path=_ROOT
    )
    found = {
        "dags": [
            {"dag_id": dag.dag_id, "file": os.path.relpath(dag.fileloc, _ROOT)} for dag in bag.dags.values()
        ],
        "errors": [_error(file, text) for file, text in sorted(bag.import_errors.items())],
    }
    json.dump(found, report)
    report.write("\n")
    report.flush()
    # What the files left running must not keep the container.
    os._exit(0)


def _error(file: str, text: str) -> dict[str, object]:
    relative = os.path.relpath(file, _ROOT)
    lines = re.findall(rf'File "{re.escape(file)}", line (\d+)', text)
    last = text.strip().splitlines()[-1] if text.strip() else "unknown"
    return {"file": relative, "line": int(lines[-1]) if lines else 0, "message": last}


if __name__ == "__main__":
    main()
