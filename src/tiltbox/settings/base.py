"""The base of all settings, and how a YAML file becomes one."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tiltbox.errors import SettingsError

_HERE, _REPOSITORY = Path("configs"), Path(__file__).resolve().parents[3] / "configs"
CONFIGS = _HERE if (_HERE / "variants.yaml").exists() else _REPOSITORY


class Settings(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def read_yaml(path: Path) -> Any:
    """Read a YAML file; a missing or malformed one is a SettingsError with its line."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(path, "there is no such file", "check the spelling") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(
            f"{path}:{line}", f"is not valid YAML ({error.problem})", "correct the line"
        ) from None


def validated(model: type[S], content: Any, where: str | Path) -> S:
    """Build ``model`` from plain data; the first thing wrong becomes a SettingsError."""
    if not isinstance(content, dict):
        raise SettingsError(where, "holds no keys", f"give {', '.join(model.model_fields)}")
    try:
        return model(**content)
    except ValidationError as error:
        raise _readable(error, model, where) from None


def load(model: type[S], path: Path) -> S:
    return validated(model, read_yaml(path), path)


def fingerprint(*settings: Settings | dict) -> str:
    """A short hash of what the settings say, independent of comments, order and layout of their files."""
    plain = [s.model_dump(mode="json") if isinstance(s, Settings) else s for s in settings]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def known_name(name: str, names: Iterable[str], where: str, kind: str) -> str:
    """Return ``name`` if it is one of ``names``, else raise a SettingsError that lists them."""
    names = list(names)
    if name in names:
        return name
    raise SettingsError(where, f"unknown {kind} '{name}'", _suggestion(name, names))


def _suggestion(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(names)}"


def _readable(error: ValidationError, model: type[Settings], where: str | Path) -> SettingsError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        owner = _owner(model, first["loc"][:-1])
        remedy = _suggestion(str(first["loc"][-1]), list(owner.model_fields)) if owner else "remove it"
        return SettingsError(f"{where}: {key}", "unknown key", remedy)
    if first["type"] == "missing":
        return SettingsError(f"{where}: {key}", "is missing", "add it")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        problem, _, remedy = message.partition("; ")
        return SettingsError(f"{where}: {key}", problem, remedy or "correct it")
    return SettingsError(
        f"{where}: {key}", f"{first['input']!r} is not accepted ({message})", "correct the value"
    )


def _owner(model: type[Settings], location: tuple) -> type[Settings] | None:
    """The settings class that holds the key at ``location``, where it can be told."""
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), None)
        if model is None:
            return None
    return model
