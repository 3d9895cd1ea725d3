"""As much of a Kubernetes API server as Helm asks when a template looks something up: kinds, and objects by name.

with cluster({"kind": "StatefulSet", ...}) as server:
    helm("template", "single", *server)

It keeps nothing, and answers 404 to whatever it was not given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.chart.charting import Document

KINDS = {"StatefulSet": "apps/v1", "Deployment": "apps/v1", "PersistentVolumeClaim": "v1"}
MISSING = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _lists() -> dict[str, Document]:
    """What kinds there are, as a server tells it."""
    found: dict[str, Document] = {}
    for kind, version in KINDS.items():
        empty = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": []}
        resource = {"name": f"{kind.lower()}s", "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
        found.setdefault(_root(version), empty)["resources"].append(resource)
    return found


@contextmanager
def cluster(*objects: Document) -> Iterator[list[str]]:
    """Further arguments of Helm, with which it asks a cluster in whose namespace ``bus`` these objects are."""
    answers = _lists()
    for each in objects:
        version, name = KINDS[each["kind"]], each["metadata"]["name"]
        answers[f"{_root(version)}/namespaces/bus/{each['kind'].lower()}s/{name}"] = {"apiVersion": version, **each}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            body = json.dumps(found or MISSING).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield ["--dry-run=server", "--kube-apiserver", f"http://127.0.0.1:{server.server_port}"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
