"""Results as data: one JSON file for each measure and day."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airbridge.errors import IntegrityError
from bench._shell import ROOT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RESULTS", "Measurement", "Target", "newest", "write"]

RESULTS = ROOT / "bench" / "results"
"""Where published results lie."""

_NAME = re.compile(r"\d{4}-\d{2}-\d{2}-(?P<what>[a-z]+)\.json")


@dataclass(frozen=True, slots=True)
class Target:
    """A number that was asked for, and what came out."""

    name: str
    limit: float
    value: float
    unit: str
    sense: Literal["at most", "at least"] = "at most"

    @property
    def met(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit if self.sense == "at most" else self.value >= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {self.value:g} {self.unit}, target {self.sense} {self.limit:g} ({verdict})"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measure's outcome.

    ``numbers`` are what is read, ``samples`` what they were made of; ``settings`` is how they were taken.
    """

    what: str
    started: str
    command: str
    machine: dict[str, Any]
    code: dict[str, Any]
    quiet: bool
    settings: dict[str, Any]
    numbers: dict[str, Any]
    samples: dict[str, Any]
    targets: tuple[Target, ...]


def write(measurement: Measurement, folder: Path = RESULTS) -> Path:
    """Write the file of the measure's day (a second run of that day replaces it) and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    day = datetime.fromisoformat(measurement.started).astimezone(UTC).date()
    path = folder / f"{day.isoformat()}-{measurement.what}.json"
    document = asdict(measurement)
    document["targets"] = [{**asdict(target), "met": target.met} for target in measurement.targets]
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, indent=1) + "\n")
    fresh.replace(path)
    return path


def _read(path: Path) -> Measurement:
    try:
        document = json.loads(path.read_text())
        targets = tuple(
            Target(**{name: value for name, value in row.items() if name != "met"})
            for row in document.pop("targets")
        )
        return Measurement(**document, targets=targets)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is no result of a benchmark: {error}", fix="remove it") from None


def newest(folder: Path = RESULTS) -> dict[str, Measurement]:
    """Return the newest result of each measure, by name.

    :raises IntegrityError: a file is not what :func:`write` writes
    """
    paths = {
        match["what"]: path for path in sorted(folder.glob("*.json")) if (match := _NAME.fullmatch(path.name))
    }
    return {what: _read(path) for what, path in paths.items()}
