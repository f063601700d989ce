"""Makes the administrator of the first start: ``python -m airbridge.controlplane._admin_user NAME``.

The password comes from standard input, because arguments are visible to every process of the container. Same
steps as ``airflow users create`` (airflow/providers/fab/auth_manager/cli_commands/user_command.py).
"""

from __future__ import annotations

import sys

__all__ = ["create_admin"]

_ROLE = "Admin"


def create_admin(name: str, password: str) -> None:
    """Create the user ``name``. Roles Admin, Op, User and Viewer come into being with the first one.

    Raises:
        SystemExit: Airflow could not create the user.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    @providers_configuration_loaded  # type: ignore[untyped-decorator]  # the builder reads [fab], which the provider brings
    def add() -> bool:
        with get_application_builder() as builder:
            manager = builder.sm
            role = manager.find_role(_ROLE)
            return bool(manager.add_user(name, "AirBridge", "Admin", f"{name}@localhost", role, password))

    if not add():
        raise SystemExit(f"Airflow refused to create user '{name}'")


if __name__ == "__main__":
    create_admin(sys.argv[1], sys.stdin.read())
