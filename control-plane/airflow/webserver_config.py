"""Flask-AppBuilder settings of the web UI: users and roles live in the metadata database."""

from __future__ import annotations

from flask_appbuilder.const import AUTH_DB

AUTH_TYPE = AUTH_DB
# Nobody signs up by themselves, and a visitor who is not signed in sees nothing.
AUTH_USER_REGISTRATION = False
AUTH_ROLE_PUBLIC = None
WTF_CSRF_ENABLED = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
