"""Stand-ins for the two servers, for the tests of `up`: they say ready, note what happens to them, and obey."""

from pathlib import Path

SCRIPT = '''"""A stand-in server."""
import json, os, signal, socket, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

NAME = Path(__file__).parent.name
NOTES = Path(__file__).parents[1] / "notes"

def note(what):
    with NOTES.open("a") as file:
        file.write(f"{NAME} {what}\\n")

def stop(why):
    note(why)
    os._exit(0)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        part = {"name": "vault" if (NOTES.parent / "vault").exists() else "provider", "ready": False, "detail": "wrong"}
        body = json.dumps({"ready": False, "parts": [part]}).encode()
        self.send_response(503)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

def main():
    note(f"started {os.getpid()} {json.dumps(sys.argv[1:])}")
    if (NOTES.parent / f"{NAME}.fails").exists():
        sys.exit(7)
    if (NOTES.parent / f"{NAME}.refuses").exists():
        sys.exit(2)
    if (NOTES.parent / f"{NAME}.stuck").exists():
        signal.signal(signal.SIGTERM, lambda *_: note("told"))
    else:
        signal.signal(signal.SIGTERM, lambda *_: stop("terminated"))
    key = "--port" if NAME == "bridge" else "--grpc-port"
    port = int(sys.argv[sys.argv.index(key) + 1])
    host = sys.argv[sys.argv.index("--host") + 1] if "--host" in sys.argv else "127.0.0.1"
    HTTPServer.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = HTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = "port" if NAME == "bridge" else "grpcPort"
    print(json.dumps({"event": "ready", name: server.server_port}), flush=True)
    sys.stdin.read()
    stop("orphaned")

main()
'''


def write_servers(folder: Path) -> None:
    """Put the packages `gateway` and `bridge` into a folder."""
    for name in ("gateway", "bridge"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "__main__.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "notes").touch()


def notes(folder: Path) -> list[str]:
    """What happened, in order."""
    return (folder / "notes").read_text(encoding="utf-8").splitlines()
