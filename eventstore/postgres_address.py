"""The address of a PostgreSQL, as people may see it."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

_SECRETS = ("password", "sslpassword")


def shown_address(dsn: str) -> str:
    """The address as a URL without its secrets."""
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    user = quote(parts.pop("user", ""), safe="")
    secret = ":***" if [parts.pop(name) for name in _SECRETS if name in parts] else ""
    host, port, database = (parts.pop(name, "") for name in ("host", "port", "dbname"))
    if "/" in host or "," in host:
        parts["host"], host = host, ""
    account = f"{user}{secret}@" if user or secret else ""
    rest = f"?{urlencode(parts, safe='/,')}" if parts else ""
    return f"postgresql://{account}{host}{f':{port}' if port else ''}/{quote(database)}{rest}"
