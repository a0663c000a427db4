"""A hub on this machine: the few addresses that huggingface_hub asks for models, with commits, large files, logins and what is refused.

Its answers are those of huggingface.co, as huggingface_hub 2.4 reads them. No part of the client is replaced; only its address is set.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN, OWNER = "hf_ann", "ann"
"""The one login, and whose it is."""
NOT_FOUND = (401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
NO_REVISION = (404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})


@dataclass
class Repository:
    private: bool = False
    is_gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Hash -> name -> content, the last one being main."""

    def commit(self, files: dict[str, bytes]) -> str:
        parent = next(reversed(self.commits), "")
        sha = hashlib.sha1((parent + repr(sorted(files.items()))).encode()).hexdigest()
        self.commits[sha] = files
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[next(reversed(self.commits))]


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        """Method and path of every request."""
        self.breaks_at = ""
        """A file whose download ends half-way."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, status: int = 200, headers: dict[str, str] | None = None, body: Any = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _is_let_in(self, writes_to: str = "") -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in ("", TOKEN):
            self._answer(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif writes_to and (given != TOKEN or writes_to.split("/")[0] != OWNER):
            self._answer(403, {"X-Error-Message": f"You don't have the rights to create a model under {writes_to.split('/')[0]}"})
        else:
            return True
        return False

    def _repository(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        owns = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not owns):
            self._answer(*NOT_FOUND)
            return None
        return found

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if not self._is_let_in():
            return
        path = unquote(self.path.partition("?")[0])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if (repository := self._repository(found[1])) is None:
                return
            revision = found[2] or "main"
            sha = next(reversed(repository.commits)) if revision == "main" else revision
            if sha not in repository.commits:
                self._answer(*NO_REVISION)
                return
            siblings = [{"rfilename": name} for name in repository.commits[sha]]
            self._answer(body={"id": found[1], "sha": sha, "private": repository.private, "siblings": siblings, "tags": []})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            if (repository := self._repository(found[1])) is None:
                return
            if repository.is_gated:
                self._answer(403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted"})
                return
            content = repository.commits[found[2]].get(found[3])
            if content is None:
                self._answer(404, {"X-Error-Code": "EntryNotFound"})
                return
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": found[2]}
            if self.command == "GET" and found[3] == self.server.breaks_at:
                self.close_connection = True
                self._answer(200, {**headers, "Content-Length": str(len(content))}, content[: len(content) // 2])
                return
            self._answer(200, headers, content)
        else:
            self._answer(404)

    def do_PUT(self) -> None:
        self.server.asked.append(f"PUT {self.path}")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self._answer()

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(self.path)
        if path == "/api/validate-yaml":
            license = re.search(rb'license: (\S+?)(\\n|")', sent)
            wrong = license is not None and license[1] == b"nonsense"
            self._answer(
                400 if wrong else 200, body={"errors": [{"message": '"license" must be one of [apache-2.0, ...]'}] if wrong else []}
            )
        elif path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked['organization']}/{asked['name']}"
            if not self._is_let_in(writes_to=name):
                return
            if name in self.server.repositories:
                self._answer(409, {"X-Error-Message": "You already created this model repo"}, {"url": f"{self.server.url}/{name}"})
                return
            made = self.server.repositories[name] = Repository(private=asked.get("visibility") == "private")
            made.commit({".gitattributes": b"*.safetensors filter=lfs"})
            self._answer(body={"url": f"{self.server.url}/{name}"})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            mode = {True: "lfs", False: "regular"}
            files = [{"path": one["path"], "shouldIgnore": False} for one in json.loads(sent)["files"]]
            self._answer(body={"files": [{**one, "uploadMode": mode[one["path"].endswith(".safetensors")]} for one in files]})
        elif found := re.fullmatch(r"/([^/]+/[^/]+).git/info/lfs/objects/batch", path):
            href = {"upload": {"href": f"{self.server.url}/large"}}
            self._answer(body={"transfer": "basic", "objects": [{**one, "actions": href} for one in json.loads(sent)["objects"]]})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            if not self._is_let_in(writes_to=found[1]):
                return
            files = dict(self.server.repositories[found[1]].files)
            for line in map(json.loads, sent.splitlines()):
                one = line["value"]
                if line["key"] == "file":
                    files[one["path"]] = base64.b64decode(one["content"])
                elif line["key"] == "lfsFile":
                    files[one["path"]] = self.server.large[one["oid"]]
                elif line["key"] == "deletedFile":
                    del files[one["path"]]
            sha = self.server.repositories[found[1]].commit(files)
            self._answer(body={"commitUrl": f"{self.server.url}/{found[1]}/commit/{sha}", "commitOid": sha})
        else:
            self._answer(404)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The hub that huggingface_hub asks in a test, as somebody who is logged in; copies go to an empty cache."""
    constants = pytest.importorskip("huggingface_hub", reason="needs the train extra").constants
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        from_environment = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "no_token"),
        }
        for name, value in from_environment.items():
            monkeypatch.setattr(constants, name, value)  # read from the environment once, when huggingface_hub was imported
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield server
        server.shutdown()
