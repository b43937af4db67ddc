"""A server on this machine that answers as Google Cloud Storage does, as far as gcsfs and tensorstore ask.

Objects live in memory, with generations and their preconditions; listings come in pages, uploads whole or in pieces.
"""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 7
"""Objects of one page of a listing: a prime, so that pages end within folders."""


class Blob(NamedTuple):
    generation: int
    data: bytes


class FakeGcs(ThreadingHTTPServer):
    """The server, with the objects of each bucket by name."""

    daemon_threads = True

    def __init__(self, *buckets: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict[str, Blob]] = {name: {} for name in buckets}
        self.sessions: dict[str, tuple[str, dict[str, str], bytearray]] = {}
        self.generations, self.lock = itertools.count(1), threading.RLock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that closes before it has read its answer, as gcsfs does, is no error."""

    def environment(self) -> dict[str, str]:
        """What makes gcsfs and tensorstore ask this server."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "GOOGLE_CLOUD_PROJECT": "fake",
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize, disable_nagle_algorithm = 1 << 16, True
    server: FakeGcs

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        words = [unquote(word) for word in url.path.split("/storage/v1/b/")[-1].split("/")]
        with self.server.lock:
            if (objects := self.server.objects.get(words[0])) is None:
                self._send(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
            elif len(words) == 1:
                self._send(200, {"kind": "storage#bucket", "name": words[0]})
            elif "upload" in url.path:
                self._upload(words[0], objects, query, body)
            elif len(words) == 2:
                self._list(words[0], objects, query)
            else:
                self._object(method, words[0], objects, words[2], query)

    def _object(self, method: str, bucket: str, objects: dict[str, Blob], name: str, query: dict[str, str]) -> None:
        blob = objects.get(name)
        if not _may(blob, query):
            self._send(412 if "ifGenerationMatch" in query else 304, None)
        elif blob is None:
            self._send(404, {"error": {"code": 404, "message": "No such object"}})
        elif method == "DELETE":
            del objects[name]
            self._send(204, None)
        elif query.get("alt") == "media":
            self._media(blob)
        else:
            self._send(200, _about(bucket, name, blob))

    def _media(self, blob: Blob) -> None:
        data, status, size = blob.data, 200, len(blob.data)
        headers = {"X-Goog-Generation": str(blob.generation)}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else size - int(last)
            end = min(int(last) if first and last else size - 1, size - 1)
            if start >= size:
                self._send(416, {})
                return
            data, status = data[start : end + 1], 206
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        self._send(status, data, headers)

    def _list(self, bucket: str, objects: dict[str, Blob], query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        entries: dict[str, bool] = {}
        for name in sorted(objects):
            rest = name.removeprefix(prefix)
            if name.startswith(prefix) and query.get("startOffset", "") <= name < query.get("endOffset", "\U0010ffff"):
                folder = bool(delimiter) and "/" in rest
                entries[prefix + rest.split("/")[0] + "/" if folder else name] = folder
        most = min(int(query.get("maxResults") or PAGE), PAGE)
        page = [entry for entry in entries if entry > query.get("pageToken", "")]
        answer: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [_about(bucket, entry, objects[entry]) for entry in page[:most] if not entries[entry]],
            "prefixes": [entry for entry in page[:most] if entries[entry]],
        }
        if len(page) > most:
            answer["nextPageToken"] = page[most - 1]
        self._send(200, answer)

    def _upload(self, bucket: str, objects: dict[str, Blob], query: dict[str, str], body: bytes) -> None:
        if "upload_id" in query:
            name, conditions, received = self.server.sessions[query["upload_id"]]
            received += body
            total = self.headers["Content-Range"].rpartition("/")[2]
            if total == "*":
                self._send(308, None, {"Range": f"bytes=0-{len(received) - 1}"} if received else {})
                return
            query, body = conditions, bytes(received)
        elif query["uploadType"] == "resumable":
            number = str(next(self.server.generations))
            name = query.get("name") or json.loads(body)["name"]
            self.server.sessions[number] = name, query, bytearray()
            location = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?upload_id={number}"
            self._send(200, {}, {"Location": location})
            return
        elif query["uploadType"] == "multipart":
            mark = b"--" + self.headers["Content-Type"].partition("boundary=")[2].strip("'\"").encode()
            about, content = body.split(mark)[1:3]
            name = json.loads(_content(about))["name"]
            body = _content(content)[:-1]
        else:
            name = query["name"]
        if not _may(objects.get(name), query):
            self._send(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return
        objects[name] = Blob(next(self.server.generations), body)
        self._send(200, _about(bucket, name, objects[name]))

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _content(part: bytes) -> bytes:
    """What stands below the headers of a part."""
    return part.replace(b"\r\n\r\n", b"\n\n", 1).split(b"\n\n", 1)[1]


def _may(blob: Blob | None, query: dict[str, str]) -> bool:
    generation = str(blob.generation) if blob else "0"
    return query.get("ifGenerationMatch", generation) == generation != query.get("ifGenerationNotMatch")


def _about(bucket: str, name: str, blob: Blob) -> dict[str, Any]:
    times = dict.fromkeys(("timeCreated", "updated"), "2023-05-03T11:13:17.000Z")
    return {"bucket": bucket, "name": name, "size": str(len(blob.data)), "generation": str(blob.generation), **times}
