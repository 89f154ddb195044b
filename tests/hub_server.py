"""The Hub's endpoints on loopback, as far as the real clients of data sets and models ask for them.

    python tests/hub_server.py FOLDER PORT_FILE

``FOLDER/datasets/<owner>/<name>/<revision>/…`` and ``FOLDER/models/<owner>/<name>/<revision>/…``
hold what is served, a revision such as ``refs/convert/parquet`` with ``%2F`` in its folder's name.
A repository with a file ``GATED`` beside its revisions answers 403. The port is written to
PORT_FILE once requests are answered.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

ROOT: Path

_API = re.compile(
    r"/api/(?P<kind>datasets|models)/(?P<repo>[^/]+/[^/]+)"
    r"(?:/(?P<what>revision|tree)/(?P<revision>[^/]+)(?:/(?P<folder>.*))?)?"
)
_FILE = re.compile(
    r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)


class Hub(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        url = urlsplit(self.path)
        if found := _API.fullmatch(url.path):
            body = self.api(found, parse_qs(url.query))
            if body is not None:
                self.send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        elif found := _FILE.fullmatch(url.path):
            self.file(found, with_body=with_body)
        else:
            self.refuse(404, "EntryNotFound")

    def repository(self, found: re.Match[str]) -> Path | None:
        """Its folder, or None once it was refused."""
        folder = ROOT / (found["kind"] or "models") / unquote(found["repo"])
        if not folder.is_dir():
            self.refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        elif (folder / "GATED").exists():
            self.refuse(403, "GatedRepo")
        else:
            return folder
        return None

    def revision(self, folder: Path, name: str | None) -> Path | None:
        """The folder of a revision by its name or its sha."""
        for each in sorted(folder.iterdir()):
            if each.is_dir() and (name in (unquote(each.name), sha_of(each)) or each.name == name):
                return each
        if name is None:
            return folder / "main"
        self.refuse(404, "RevisionNotFound")
        return None

    def api(self, found: re.Match[str], query: dict[str, list[str]]) -> Any:
        repository = self.repository(found)
        if repository is None:
            return None
        name = found["revision"] and unquote(found["revision"])
        revision = self.revision(repository, name)
        if revision is None:
            return None
        files = [path for path in sorted(revision.rglob("*")) if path.is_file()]
        if found["what"] != "tree":
            return {
                "id": found["repo"],
                "sha": sha_of(revision),
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": str(path.relative_to(revision))} for path in files],
            }
        folder = revision / unquote(found["folder"] or "")
        if not folder.is_dir():
            self.refuse(404, "EntryNotFound")
            return None
        is_recursive = query.get("recursive", ["false"])[0].lower() == "true"
        entries = sorted(folder.rglob("*") if is_recursive else folder.iterdir())
        return [
            {
                "type": "file" if path.is_file() else "directory",
                "path": str(path.relative_to(revision)),
                "size": path.stat().st_size if path.is_file() else 0,
                "oid": hashlib.sha1(str(path).encode()).hexdigest(),
            }
            for path in entries
        ]

    def file(self, found: re.Match[str], *, with_body: bool) -> None:
        repository = self.repository(found)
        if repository is None:
            return
        revision = self.revision(repository, unquote(found["revision"]))
        if revision is None:
            return
        path = revision / unquote(found["path"])
        if not path.is_file():
            self.refuse(404, "EntryNotFound")
            return
        content, headers = (
            path.read_bytes(),
            {
                "ETag": f'"{hashlib.sha1(path.read_bytes()).hexdigest()}"',
                "X-Repo-Commit": sha_of(revision),
                "Accept-Ranges": "bytes",
            },
        )
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span and with_body:
            start, end = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self.send(206, content[start : end + 1], headers)
        else:
            self.send(200, content, headers, with_body=with_body)

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def send(
        self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the screen of a test."""


def sha_of(revision: Path) -> str:
    return hashlib.sha1(quote(str(revision.relative_to(ROOT))).encode()).hexdigest()


def main() -> None:
    global ROOT
    ROOT = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    partial = Path(f"{sys.argv[2]}.part")
    partial.write_text(str(server.server_address[1]))
    partial.rename(sys.argv[2])
    server.serve_forever()


if __name__ == "__main__":
    main()
