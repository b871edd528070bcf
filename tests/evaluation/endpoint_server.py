"""A real HTTP server on loopback that plays an OpenAI-compatible endpoint, with whatever manners a test wants."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Speaker = Callable[[str], str]  # from the question to the reply


class Server:
    """What it was asked, and how it behaves.

    Attributes:
        speaker: makes a reply of a question.
        failures: answers that come first, each a status and headers; used up one by one, whoever asks.
        seconds: before each answer.
        key: the only one that it lets in; None = anybody.
        models: that it has.
        asked: the JSON of every request that reached a reply, in order of arrival.
        requests: all of them, those that failed too.
    """

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.seconds = 0.0
        self.key: str | None = None
        self.models = {"judge-model"}
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self.raw: str | None = None  # answers this, whatever it is
        self.limit: int | None = None  # from then on it fails with 503
        self.base_url = ""
        self.lock = threading.Lock()

    def questions(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.asked]

    def answer(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
        """Status, headers and text for one request."""
        time.sleep(self.seconds)
        with self.lock:
            self.requests += 1
            self.headers.append(headers)
            if self.failures:
                status, extra = self.failures.pop(0)
                return status, extra, '{"error": {"message": "come back later"}}'
            if self.limit is not None and len(self.asked) >= self.limit:
                return 503, {}, '{"error": {"message": "over"}}'
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                return 401, {}, '{"error": {"message": "Incorrect API key provided: SECRET"}}'
            if body["model"] not in self.models:
                return 404, {}, '{"error": {"message": "The model does not exist"}}'
            self.asked.append(body)
        if self.raw is not None:
            return 200, {}, self.raw
        text = self.speaker(body["messages"][0]["content"])
        message = {"role": "assistant", "content": text}
        done = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        return 200, {}, json.dumps(done)


@contextmanager
def serve(speaker: Speaker) -> Iterator[Server]:
    """A server for the block."""
    server = Server(speaker)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/chat/completions", self.path
            status, extra, text = server.answer(body, {name.lower(): value for name, value in self.headers.items()})
            content = text.encode()
            try:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **extra}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a client that lost its patience

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def shown(question: str) -> dict[str, str]:
    """The prompt and the two answers of a question, by their marks."""
    code = question.split("marks with the code ", 1)[1][:12]
    parts = ("prompt", "answer A", "answer B")
    return {part: question.split(f"<{part} {code}>\n")[1].split(f"\n</{part} {code}>")[0] for part in parts}


def longer(question: str) -> str:
    """A good judge that likes the longer answer."""
    texts = shown(question)
    a, b = len(texts["answer A"]), len(texts["answer B"])
    return f"I compared them.\n\n[[{'A' if a > b else 'B' if b > a else 'C'}]]"


def in_turn(replies: Sequence[str]) -> Speaker:
    """Says these, one after the other, over and over."""
    lock, count = threading.Lock(), [0]

    def speak(_: str) -> str:
        with lock:
            count[0] += 1
            return replies[(count[0] - 1) % len(replies)]

    return speak
