"""The documentation says what is true: links, targets, settings, services and error texts exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ADRS = sorted(ROOT.glob("docs/adr/*.md"))
COMPOSE_FILES = (ROOT / "compose.yaml", ROOT / "compose.edge.yaml")
ENV_EXAMPLE = ROOT / ".env.example"

#: What may print an error that the documentation quotes.
SOURCES = sorted(
    [
        *ROOT.glob("src/airbridge/**/*.py"),
        *ROOT.glob("scripts/*"),
        *ROOT.glob("control-plane/**/*.sh"),
        *ROOT.glob("edge-worker/**/*.sh"),
        *ROOT.glob("dags/**/*.py"),
    ]
)
#: Said by programs that are not ours.
FOREIGN_MESSAGES = frozenset(
    {"could not find an available, non-overlapping IPv4 address pool", "password authentication failed"}
)
VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?:(:?[-?+])([^}]*))?\}")
COMMAND_BLOCK = re.compile(r"^```(?:bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(path), flags=re.MULTILINE | re.DOTALL)


def commands_of(path: Path) -> str:
    """What a reader would type: fenced shell blocks and inline code."""
    blocks = COMMAND_BLOCK.findall(text_of(path))
    return "\n".join([*blocks, *INLINE_CODE.findall(prose_of(path))])


def anchors_of(path: Path) -> set[str]:
    """Anchors that GitHub gives the page's headings."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_rows(path: Path, heading: str) -> list[list[str]]:
    """Cells of the table rows below the first heading of that text."""
    _, _, rest = text_of(path).partition(f"# {heading}\n")
    assert rest, f"{name_of(path)} has no heading '{heading}'"
    section = re.split(r"^#{1,6} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and not set(line) <= set("|- ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[1:]]


def compose_defaults() -> dict[str, str]:
    """Every variable of both compose files with its default (empty when it has none)."""
    found: dict[str, str] = {}
    for path in COMPOSE_FILES:
        for name, operator, value in VARIABLE.findall(text_of(path)):
            default = value if operator.endswith("-") else ""
            found[name] = found.get(name) or default
    return found


def example_settings() -> dict[str, str]:
    """Every setting of .env.example with the value in its (commented) line."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text_of(ENV_EXAMPLE), re.MULTILINE))


def services() -> set[str]:
    return {name for path in COMPOSE_FILES for name in yaml.safe_load(text_of(path))["services"]}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        missing_heading = (
            anchor and path.suffix == ".md" and path.is_file() and anchor not in anchors_of(path)
        )
        if not path.exists() or missing_heading:
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = " ".join(re.findall(r"^\.PHONY: (.+)$", text_of(ROOT / "Makefile"), re.MULTILINE)).split()
    # "make up", "V=1 make up", "$(make -s password)"; not "make edge hosts" in prose.
    named = re.findall(r"(?<![\w-])make (?:-s )?([a-z][a-z-]*)", commands_of(page))
    assert sorted(set(named) - set(targets)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_script_and_service_that_is_named_exists(page: Path) -> None:
    text = text_of(page)
    missing = [
        path for path in re.findall(r"\bscripts/[\w.-]+\.(?:sh|py)\b", text) if not (ROOT / path).is_file()
    ]
    called = re.findall(
        r"docker compose(?: (?:-f|-p|--env-file) \S+| --profile demo)* (?:exec|restart|logs|cp|run)"
        r"(?: -T| --rm| --no-deps| --no-log-prefix| --(?:tail|since) \S+| -e \S+)* ([a-z][a-z-]*)",
        re.sub(r"\\\n\s*", "", text),
    )
    assert missing == []
    assert sorted(set(called) - services()) == []


def test_every_variable_of_the_compose_files_is_documented() -> None:
    documented = set(example_settings()) | set(
        re.findall(r"`([A-Z][A-Z0-9_]+)`", text_of(ROOT / "docs/configuration.md"))
    )
    assert sorted(set(compose_defaults()) - documented) == []


def test_every_setting_of_the_example_is_used() -> None:
    used = set(compose_defaults())
    for script in ROOT.glob("scripts/*.sh"):
        used |= set(re.findall(r"\b[A-Z][A-Z0-9_]{3,}\b", text_of(script)))
    assert sorted(set(example_settings()) - used) == []


def test_the_example_shows_the_defaults_of_the_compose_files() -> None:
    defaults = compose_defaults() | {
        "COMPOSE_PROJECT_NAME": yaml.safe_load(text_of(COMPOSE_FILES[0]))["name"]
    }
    # A mount has to name a file even when the setting is empty.
    defaults |= {
        "CONTROL_PLANE_TOKEN_FILE": "",
        "CONTROL_PLANE_CA_FILE": "",
        "CONTROL_PLANE_CERTIFICATE_FILE": "",
    }
    wrong = {
        name: (value, defaults[name])
        for name, value in example_settings().items()
        if name in defaults and value != defaults[name]
    }
    assert wrong == {}


def test_nothing_in_the_example_is_set() -> None:
    assert re.findall(r"^[^#\n].*$", text_of(ENV_EXAMPLE), re.MULTILINE) == []


def test_the_tables_of_settings_show_the_defaults_of_the_compose_files() -> None:
    defaults = compose_defaults()
    wrong = {}
    for heading in (
        "The stack and its doors",
        "S3",
        "DAG sync",
        "Job sync",
        "Scheduler and parser",
        "Edge host",
    ):
        for setting, default, *_ in table_rows(ROOT / "docs/configuration.md", heading):
            name = setting.strip("`")
            stated = INLINE_CODE.findall(default)
            if name in defaults and stated and stated[0] != defaults[name]:
                wrong[name] = (stated[0], defaults[name])
    assert wrong == {}


def test_set_up_is_two_commands() -> None:
    _, _, rest = text_of(ROOT / "README.md").partition("\n## Set-up\n")
    section = rest.partition("\n## ")[0]
    assert re.findall(r"^\$ (.+)$", section, re.MULTILINE) == ["make up", "make test"]
    assert "```bash" not in section


@pytest.mark.parametrize("adr", ADRS, ids=name_of)
def test_every_decision_has_its_four_parts_in_order(adr: Path) -> None:
    headings = re.findall(r"^## (.+)$", text_of(adr), re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Alternatives tried"]
    number = adr.name[:4]
    assert text_of(adr).startswith(f"# {number}: ")


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(adr.name[:4]) for adr in ADRS] == list(range(1, len(ADRS) + 1))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/troubleshooting.md"], ids=name_of)
def test_every_quoted_error_is_one_that_the_code_can_print(page: Path) -> None:
    code = "\n".join(text_of(path) for path in SOURCES)
    # A message that is written over several lines of Python is one text.
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    tables = re.findall(r"^\| message \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text_of(page), re.MULTILINE)
    quoted = [
        message
        for table in tables
        for row in table.splitlines()
        for message in INLINE_CODE.findall(re.split(r"(?<!\\)\|", row)[1])
    ]
    assert len(quoted) > 5
    unknown = [
        f"{message}: {part}"
        for message in quoted
        if message not in FOREIGN_MESSAGES
        for part in message.split("…")
        if part.strip(" .:,()") and part.strip() not in code
    ]
    assert unknown == []


@pytest.mark.parametrize("page", [*PAGES, ENV_EXAMPLE], ids=name_of)
def test_pages_are_finished(page: Path) -> None:
    assert re.findall(r"TODO|TBD|FIXME|XXX|@@|lorem ipsum", text_of(page)) == []
