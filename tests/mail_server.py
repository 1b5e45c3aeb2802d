"""A mail server that keeps what it is sent, with or without TLS."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Mailbox:
    """A mail server that keeps what it is sent."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    login: bool = False
    reply: str = "250 taken"
    said: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)


class Smtp(socketserver.StreamRequestHandler):
    box: Mailbox

    def handle(self) -> None:
        self._answer("220 here")
        while line := self.rfile.readline().decode().strip():
            self.box.said.append(line)
            verb = line.split()[0].upper()
            if verb == "QUIT":
                self._answer("221 bye")
                return
            if verb == "STARTTLS" and self.box.tls is not None:
                self._answer("220 go on")
                try:
                    self.request = self.box.tls.wrap_socket(self.request, server_side=True)
                except OSError:
                    return
                self.rfile.close()
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb")
                continue
            self._reply(verb)

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def _reply(self, verb: str) -> None:
        secure = isinstance(self.request, ssl.SSLSocket)
        if verb == "EHLO":
            offers = ["STARTTLS"] if self.box.tls and not secure else []
            offers += ["AUTH PLAIN"] if self.box.login else []
            lines = ["127.0.0.1", *offers]
            self._answer("\r\n".join([*(f"250-{x}" for x in lines[:-1]), f"250 {lines[-1]}"]))
        elif verb == "AUTH":
            self._answer("235 welcome")
        elif verb == "DATA":
            self._answer("354 go on")
            lines = []
            while (line := self.rfile.readline().decode()) != ".\r\n":
                lines.append(line)
            self.box.mails.append("".join(lines))
            self._answer("250 kept")
        else:
            self._answer(self.box.reply if verb == "RCPT" else "250 fine")

    def _answer(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
        self.wfile.flush()


@contextmanager
def mail_server(box: Mailbox) -> Iterator[Mailbox]:
    handler = type("Handler", (Smtp,), {"box": box})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()
