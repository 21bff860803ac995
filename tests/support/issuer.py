"""Whoever issues tokens, for a test: keys, tokens, and a key set over HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.support.loopback_server import loopback_server

ISSUER = "https://issuer.example"
AUDIENCE = "penstock"


class Issuer:
    """Signs tokens with one key."""

    def __init__(self, kid: str = "one", algorithm: str = "ES256") -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._key: Any
        if algorithm == "ES256":
            self._key = ec.generate_private_key(ec.SECP256R1())
            kind: Any = jwt.algorithms.ECAlgorithm
        elif algorithm == "EdDSA":
            self._key = ed25519.Ed25519PrivateKey.generate()
            kind = jwt.algorithms.OKPAlgorithm
        else:
            self._key = rsa.generate_private_key(65537, 2048)
            kind = jwt.algorithms.RSAAlgorithm
        self.jwk = {**json.loads(kind.to_jwk(self._key.public_key())), "kid": kid}

    def token(self, subject: str = "alice", *, valid_s: float = 600.0, **changes: Any) -> str:
        """A good token, with changes; a claim that is None is left out."""
        claims = {
            "sub": subject,
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": time.time() + valid_s,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self._key, self.algorithm, headers={"kid": self.kid})


def key_set(*issuers: Issuer) -> str:
    """The public halves, as a key set."""
    return json.dumps({"keys": [issuer.jwk for issuer in issuers]})


@dataclass
class KeyServer:
    """A key set over HTTP on loopback. `answer` is sent as it is, once it may; `asked` counts."""

    answer: bytes = b""
    asked: int = 0
    url: str = ""
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def serve(self, body: str, status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
        self.answer = "\r\n".join([*lines, *headers, "", body]).encode()


@asynccontextmanager
async def key_server(*issuers: Issuer) -> AsyncIterator[KeyServer]:
    """A key server that runs."""
    state = KeyServer()
    state.may_answer.set()
    state.serve(key_set(*issuers))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        state.asked += 1
        await state.may_answer.wait()
        writer.write(state.answer)
        await writer.drain()

    async with loopback_server(answer) as server:
        state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        yield state
