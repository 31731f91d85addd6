"A stand-in for the Hugging Face hub on loopback: the few endpoints that its client libraries ask for, and a hub's bad days."
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c" * 40  # every repository has this one commit
REPO = r"(?:(?:api/)?(models|datasets)/)?([^/]+/[^/]+)"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args): pass

    def reply(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in {"Content_Length": len(body), **headers}.items(): self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)

    def answer(self, value): self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, code, why): self.reply(code, b"{}", X_Error_Code=why, X_Error_Message=why, X_Repo_Commit=COMMIT)

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.mood == "silent": return self.server.closing.wait(60)
        self.form = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path).lstrip("/")
        api, file = re.fullmatch(rf"{REPO}(?:/(.*))?", path) if path.startswith("api/") else None, re.fullmatch(rf"{REPO}/resolve/([^/]+)/(.+)", path)
        kind, repo = (api or file).group(1, 2) if api or file else (None, None)
        folder = self.server.root / (kind or "models") / str(repo)
        if not folder.is_dir(): return self.refuse(404, "RepoNotFound")
        if api: return self.about(kind, repo, folder, api[3] or "")
        if (folder / "GATED").exists() and self.headers.get("Authorization") != "Bearer hf_letmein":
            return self.refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
        self.send_file(folder / file[4])

    do_HEAD = do_POST = do_GET

    def about(self, kind, repo, folder, question):  # the JSON half of the hub
        entries = [self.entry(p, folder) for p in sorted(folder.rglob("*")) if p.is_file()]
        if question in ("", "revision/main", f"revision/{COMMIT}"):
            return self.answer({"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "private": False, "gated": False, "tags": [], "downloads": 0, "likes": 0,
                                "lastModified": "2024-01-01T00:00:00.000Z", "siblings": [{"rfilename": e["path"]} for e in entries]})
        if question.startswith("tree/"):
            inside = question.split("/", 2)[2:]
            return self.answer([e for e in entries if not inside or e["path"].startswith(inside[0])])
        if question.startswith("paths-info/"):
            wanted = json.loads(self.form)["paths"] if "json" in self.headers.get("Content-Type", "") else parse_qs(self.form.decode()).get("paths", [])
            return self.answer([e for e in entries if e["path"] in wanted])
        self.refuse(404, "EntryNotFound")

    def entry(self, path, folder):
        data = path.read_bytes()
        return {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def send_file(self, path):
        if not path.is_file(): return self.refuse(404, "EntryNotFound")
        data, code, extra = path.read_bytes(), 200, {}
        about = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        if self.server.mood == "stalls" and self.command == "GET" and len(data) > 2000:  # half a file, and then nothing
            self.send_response(200)
            for name, value in {**about, "Content_Length": len(data)}.items(): self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(data[:1000])
            self.wfile.flush()
            return self.server.closing.wait(60)
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, end = int(part[1]), int(part[2] or len(data) - 1)
            code, extra, data = 206, {"Content_Range": f"bytes {start}-{end}/{len(data)}"}, data[start:end + 1]
        self.reply(code, data, **about, **extra)


@contextmanager
def fakehub(root, mood="well"):  # a folder with models/ORG/NAME and datasets/ORG/NAME; "well", "silent" (never answers) or "stalls" (in the middle of a file)
    "(address, list of what was asked) of a hub that serves the folder while inside the `with`. A repository that holds a file GATED wants the token hf_letmein."
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.root, server.mood, server.asked, server.closing = True, Path(root), mood, [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f"http://127.0.0.1:{server.server_address[1]}", server.asked
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
