"""Results are data: written, read again, and shown."""

from __future__ import annotations

import json
import re

import pytest
from bench._render import markdown, render
from bench._results import Target, newest, write

from airbridge.errors import IntegrityError

_ALL = ("cold", "dispatch", "visible", "idle", "worked")


def test_result_that_was_written_is_read_as_it_was(measurement, tmp_path):
    written = {what: measurement(what) for what in _ALL}
    paths = [write(result, tmp_path / "results") for result in written.values()]
    assert sorted(path.name for path in paths) == sorted(f"2031-02-03-{what}.json" for what in _ALL)
    assert newest(tmp_path / "results") == written


def test_result_says_whether_its_targets_were_met(measurement, tmp_path):
    targets = (Target("good", 10, 9, "s"), Target("bad", 10, 11, "s"))
    document = json.loads(write(measurement("cold", targets=targets), tmp_path).read_text())
    assert [row["met"] for row in document["targets"]] == [True, False]


def test_newest_result_of_a_measure_counts(measurement, tmp_path):
    for day in ("2031-02-03", "2031-11-01", "2031-02-04"):
        write(measurement("idle", started=f"{day}T00:00:00+00:00"), tmp_path)
    assert newest(tmp_path)["idle"].started.startswith("2031-11-01")


def test_second_run_of_a_day_replaces_the_first(measurement, tmp_path):
    write(measurement("idle"), tmp_path)
    write(measurement("idle", quiet=False), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["2031-02-03-idle.json"]
    assert newest(tmp_path)["idle"].quiet is False


@pytest.mark.parametrize("text", ["{", "{}", '{"targets": [], "what": "idle"}', '{"targets": [{}]}'])
def test_file_that_is_no_result_is_named(tmp_path, text):
    path = tmp_path / "2031-01-01-idle.json"
    path.write_text(text)
    with pytest.raises(IntegrityError, match=re.escape(str(path))):
        newest(tmp_path)


def test_page_shows_every_measure_its_machine_and_its_targets(measurement, tmp_path):
    for what in _ALL:
        write(measurement(what), tmp_path)
    page = render(tmp_path).read_text()
    for heading in (
        "From a fresh clone",
        "How tasks come to workers",
        "From S3 to the API",
        "Idle memory",
        "Idle again",
    ):
        assert f"## {heading}" in page
    for words in (
        "0123456789ab",
        "2 cores",
        "load 0.2 at the start",
        "airbridge/local",
        "a relay in user space",
        "| **all** | **30.5** |",
    ):
        assert words in page
    assert page.count("| met |") == len(_ALL)
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page):
        assert (tmp_path / picture).read_text().count("<svg") == 1


def test_page_says_what_was_missed_and_what_was_measured_under_load(measurement):
    missed = (Target("too slow", 10, 11, "s"),)
    page = markdown({"idle": measurement("idle", targets=missed, quiet=False)})
    assert "**missed**" in page
    assert "not to be compared" in page
    assert "not to be compared" not in markdown({"idle": measurement("idle")})


def test_same_data_make_the_same_pictures(measurement, tmp_path):
    pages = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        for what in _ALL:
            write(measurement(what), folder)
        render(folder)
        pages.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert pages[0] == pages[1]
    assert {"dispatch.svg", "visible.svg", "README.md"} <= set(pages[0])


def test_page_of_no_results_has_a_title_and_nothing_else():
    assert markdown({}).startswith("# ")
    assert "##" not in markdown({})
