"""Writer: stores the graph of a run in SQLite, all of it or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._service import Request, Service

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

__all__ = ["Writer"]


class Writer(Service):
    """Result, read from its tables: ``{"repo", "nodes": [{"name", "depth", "lines"}], "edges": [...]}``."""

    name = "writer"
    action = "/apply"
    schema = """
    CREATE TABLE IF NOT EXISTS node (
        run_id TEXT NOT NULL REFERENCES results (run_id) ON DELETE CASCADE,
        name TEXT NOT NULL, depth INTEGER NOT NULL, lines INTEGER NOT NULL,
        PRIMARY KEY (run_id, name)
    );
    CREATE TABLE IF NOT EXISTS edge (
        run_id TEXT NOT NULL, model TEXT NOT NULL, refers_to TEXT NOT NULL,
        PRIMARY KEY (run_id, model, refers_to),
        FOREIGN KEY (run_id, model) REFERENCES node (run_id, name) ON DELETE CASCADE,
        FOREIGN KEY (run_id, refers_to) REFERENCES node (run_id, name) ON DELETE CASCADE
    );
    """

    def compute(self, request: Request) -> dict[str, Any]:
        """Take the graph that the analyzer found in this run."""
        analysed = self.from_peer("analyzer", request.run_id)
        return {key: analysed[key] for key in ("repo", "nodes", "edges")}

    def keep(self, run_id: str, result: dict[str, Any]) -> None:
        """Write nodes and edges in the transaction that marks the run as done."""

        def insert(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO node VALUES (?, ?, ?, ?)",
                [(run_id, node["name"], node["depth"], node["lines"]) for node in result["nodes"]],
            )
            connection.executemany(
                "INSERT INTO edge VALUES (?, ?, ?)",
                [(run_id, edge["model"], edge["refers_to"]) for edge in result["edges"]],
            )

        self.store.put(run_id, {"repo": result["repo"]}, also=insert)

    def result(self, run_id: str) -> dict[str, Any]:
        """Read the graph back from its tables."""
        found = super().result(run_id)
        with self.store.connection() as connection:
            nodes = connection.execute(
                "SELECT name, depth, lines FROM node WHERE run_id = ? ORDER BY depth, name", (run_id,)
            ).fetchall()
            edges = connection.execute(
                "SELECT model, refers_to FROM edge WHERE run_id = ? ORDER BY model, refers_to", (run_id,)
            ).fetchall()
        return {
            "repo": found["repo"],
            "nodes": [dict(zip(("name", "depth", "lines"), row, strict=True)) for row in nodes],
            "edges": [dict(zip(("model", "refers_to"), row, strict=True)) for row in edges],
        }

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Number of rows written."""
        return {"nodes": len(result["nodes"]), "edges": len(result["edges"])}
