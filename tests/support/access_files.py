"""Files of API keys, written for a test."""

import hashlib
import json
from pathlib import Path


def key_entry(name: str, key: str, *groups: str, **limits: float) -> dict[str, object]:
    """What a file of keys says of one."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {"name": name, "sha256": digest, "groups": list(groups) or ["all"], **limits}


def write_keys(path: Path, *entries: object) -> Path:
    """Writes the file as one that replaces it, which is how it is done where others read it."""
    return write_text(path, json.dumps({"keys": list(entries)}))


def write_text(path: Path, text: str) -> Path:
    """Writes any text in the same way."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
    return path
