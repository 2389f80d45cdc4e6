"""Access tokens for the agents of this run, signed RS256 with a key that is made for it and kept in
memory only. Python's standard library has no signatures, so the few lines of arithmetic are here;
they protect nothing.
"""

import base64
import hashlib
import json
import secrets
import time

KEY_BITS = 2048
EXPONENT = 65537
# DER of `DigestInfo` for SHA-256 (RFC 8017, section 9.2, note 1).
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
SMALL = [n for n in range(3, 2000) if all(n % d for d in range(2, int(n**0.5) + 1))]


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _is_prime(n: int) -> bool:
    if any(n % small == 0 for small in SMALL):
        return False
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(16):
        x = pow(secrets.randbelow(n - 3) + 2, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def _prime(bits: int) -> int:
    while True:
        n = secrets.randbits(bits) | (3 << (bits - 2)) | 1
        if (n - 1) % EXPONENT and _is_prime(n):
            return n


class Issuer:
    """Issues tokens for `audience`."""

    NAME = "https://login.example.com"

    def __init__(self, audience: str) -> None:
        self.audience = audience
        p, q = _prime(KEY_BITS // 2), _prime(KEY_BITS // 2)
        self.n = p * q
        self.d = pow(EXPONENT, -1, (p - 1) * (q - 1))

    def jwks(self) -> str:
        n = _b64(self.n.to_bytes(KEY_BITS // 8, "big"))
        e = _b64(EXPONENT.to_bytes(3, "big"))
        return json.dumps({"keys": [{"kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig", "n": n, "e": e}]})

    def token(self, subject: str) -> str:
        now = int(time.time())
        claims = {"iss": self.NAME, "sub": subject, "aud": self.audience, "iat": now, "exp": now + 24 * 3600}
        parts = ({"alg": "RS256", "kid": "k", "typ": "at+jwt"}, claims)
        text = ".".join(_b64(json.dumps(part).encode()) for part in parts)
        info = SHA256_INFO + hashlib.sha256(text.encode()).digest()
        length = KEY_BITS // 8
        padded = b"\0\1" + b"\xff" * (length - 3 - len(info)) + b"\0" + info
        signature = pow(int.from_bytes(padded, "big"), self.d, self.n).to_bytes(length, "big")
        return f"{text}.{_b64(signature)}"
