"""The pieces of work that need no HTTP: mining, analysing, rendering."""

from __future__ import annotations

import pytest
from demo.fresh_poc._errors import ServiceError
from demo.fresh_poc.analyzer import analyze
from demo.fresh_poc.miner import mine
from demo.fresh_poc.reporting import render


@pytest.mark.parametrize(
    ("text", "refs"),
    [
        ("select 1", []),
        ("from {{ ref('a') }} join {{ref(\"b\")}} join {{- ref( 'a' ) -}}", ["a", "b"]),
        ("-- {{ ref('a') }}\nfrom {{ ref('b') }}", ["b"]),
        ("/* {{ ref('a') }}\n{{ ref('c') }} */ from {{ ref('b') }}", ["b"]),
        ("from {{ ref('a\") }}", []),
    ],
)
def test_mining_finds_references_but_not_in_comments(text: str, refs: list[str]) -> None:
    assert mine("models/x.sql", text)["refs"] == refs


def test_mining_counts_lines_of_code_only() -> None:
    mined = mine("models/deep/x.sql", "-- head\n\nselect 1\n  -- tail\nfrom t\n")
    assert mined == {"name": "x", "path": "models/deep/x.sql", "lines": 2, "refs": []}


def _model(name: str, *refs: str) -> dict[str, object]:
    return {"name": name, "lines": 1, "refs": list(refs)}


def test_analysis_gives_each_model_the_depth_of_its_longest_chain() -> None:
    graph = analyze([_model("d", "a", "c"), _model("c", "b"), _model("b", "a"), _model("a")])
    assert [(node["name"], node["depth"]) for node in graph["nodes"]] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("d", 3),
    ]
    assert graph["results"] == ["d"]


def test_analysis_names_references_to_nothing_and_leaves_them_out_of_the_edges() -> None:
    graph = analyze([_model("a", "ghost")])
    assert graph["dangling"] == ["ghost"]
    assert graph["edges"] == []


def test_a_circle_of_models_is_refused_with_the_circle() -> None:
    with pytest.raises(ServiceError, match=r"circle: (a -> b -> a|b -> a -> b)") as caught:
        analyze([_model("a", "b"), _model("b", "a")])
    assert caught.value.status == 422


def test_analysis_of_nothing_is_empty() -> None:
    assert analyze([]) == {"nodes": [], "edges": [], "results": [], "dangling": []}


def test_report_says_what_each_model_is_built_on() -> None:
    report = render({"repo": "r", **analyze([_model("b", "a"), _model("a")])})
    assert "2 models, 1 references." in report
    assert "| 0 | a | 1 | - |\n| 1 | b | 1 | a |\n" in report
