"""Plain GET requests to the bridge. Called by up and doctor; proxies of the environment are not used."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


def get(url: str, path: str, timeout: float = 5.0) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object at a path of the server; {} if it is none. Raises OSError: nobody answers."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(1024 * 1024)
    except http.client.HTTPException as error:
        raise OSError(f"{url} does not speak HTTP") from error
    finally:
        connection.close()
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    return response.status, said if isinstance(said, dict) else {}


def missing(ready: dict[str, Any]) -> dict[str, str]:
    """What GET /ready says is not in order: the parts, and what is wrong with them."""
    parts = ready.get("parts") or []
    return {str(part.get("name")): str(part.get("detail") or "") for part in parts if not part.get("ready")}
