"""The example application over the fake encoder and an in-memory collection, and a scripted chat model."""

import asyncio
import http.server
import json
import threading

from examples.rag_app import web
from examples.rag_app.answering import Assistant
from examples.rag_app.library import Library
from m3connect.serving.service import Service
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder

DOCUMENTS = {
    "battery.md": "---\nlang: en\n---\n# Battery\n\nCharging the battery takes four hours. Store it at 60 percent.",
    "depot.txt": "The hill depot opens at ten.",
}
THRESHOLD = 0.9


class Scripted(http.server.ThreadingHTTPServer):
    """An OpenAI-compatible endpoint that streams what it is told, or fails as it is told.

    ``script`` holds answers in order, each a list of pieces, a status, or both: pieces and then ``None``
    for a connection that breaks off. Before the last piece it waits for ``gate``.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.script, self.asked, self.gate = [], [], threading.Event()
        self.gate.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Answering(http.server.BaseHTTPRequestHandler):
    """Requests to :class:`Scripted`. As with real endpoints the connection stays for a next one."""

    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        pieces = self.server.script.pop(0)
        if isinstance(pieces, int):
            self.send_error(pieces)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for row, piece in enumerate(pieces):
            if row == len(pieces) - 1:
                self.server.gate.wait(20)
            if piece is None:
                self._write(b"data: {broken\n\n")
                self.close_connection = True
                return
            delta = piece if isinstance(piece, dict) else {"content": piece}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "tiny"}
            chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": None}]
            self._write(f"data: {json.dumps(chunk)}\n\n".encode())
        self._write(b"data: [DONE]\n\n")
        self._write(b"")

    def _write(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_):
        """Say nothing."""


class App:
    """The application's parts, over a folder of two documents."""

    def __init__(self, home):
        self.home = home
        self.collection = MemoryConnector(collection="documents")
        self.service = Service(HashEncoder(width=256), {"documents": lambda: self.collection})
        self.library = Library(home / "documents", self.service)
        for name, text in DOCUMENTS.items():
            (self.library.folder / name).write_text(text, encoding="utf-8")
        self.library.sync(lambda added: None)
        self.assistant = Assistant(self.service, THRESHOLD, None)
        self.web = web.create(self.library, self.assistant, home)

    def ask(self, question, *before, condition=None):
        """The events of an answer."""

        async def events():
            return [event async for event in self.assistant.answer(question, before, condition)]

        return asyncio.run(events())
