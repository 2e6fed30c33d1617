"""The base of all settings, and how a YAML file becomes one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from tiltbox.errors import SettingsError, choice_of

if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeLoader
else:
    from yaml import CSafeLoader as SafeLoader  # ten times as fast

_HERE, _REPOSITORY = Path("configs"), Path(__file__).resolve().parents[2] / "configs"
CONFIGS = _HERE if (_HERE / "variants.yaml").exists() else _REPOSITORY


class Settings(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)
Location = tuple[int | str, ...]  # of a value: keys and indices that lead to it


class _Loader(SafeLoader):
    """Refuses a key that is given twice: YAML forbids it, and PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"'{key.value}' is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Read a YAML file; a missing or malformed one is a SettingsError with its line."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        installed = "run it in tiltbox's own folder, or install it from there with 'pip install --editable'"
        remedy = "check the spelling" if CONFIGS.is_dir() else installed
        raise SettingsError(path, "file not found", remedy) from None
    except OSError as error:
        raise SettingsError(path, f"cannot be read ({error.strerror})", "give a readable file") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(
            f"{path}:{line}", f"is not valid YAML ({error.problem})", "correct the line"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(path, "is not valid UTF-8", "save it as UTF-8") from None


def validated(model: type[S], content: Any, where: str | Path) -> S:
    """Build ``model`` from plain data; the first thing wrong becomes a SettingsError."""
    if not isinstance(content, dict):
        raise SettingsError(where, "contains no keys", f"give {', '.join(model.model_fields)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _readable(error, model, content, where) from None


def load(model: type[S], path: Path) -> S:
    return validated(model, read_yaml(path), path)


def fingerprint(*settings: Settings | dict[str, Any]) -> str:
    """A short hash of what the settings say, independent of comments, order and layout of their files."""
    plain = [s.model_dump(mode="json") if isinstance(s, Settings) else s for s in settings]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def known_name(name: str, names: Iterable[str], where: str, kind: str) -> str:
    """Return ``name`` if it is one of ``names``, else raise a SettingsError that lists them."""
    names = list(names)
    if name in names:
        return name
    raise SettingsError(where, f"unknown {kind} '{name}'", choice_of(name, names))


def _readable(
    error: ValidationError, model: type[Settings], content: dict[str, Any], where: str | Path
) -> SettingsError:
    # A misspelt key is missing, too, but the misspelling is the more helpful message.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    location = _without_tags(first["loc"], content)
    if first["type"] in ("missing", "union_tag_not_found"):
        key = first["ctx"]["discriminator"].strip("'") if "ctx" in first else None
        return SettingsError(_place(where, location + ((key,) if key else ())), "is missing", "add it")
    if first["type"] == "union_tag_invalid":
        kind, *known = (text.strip("'") for text in _tags(first["ctx"]))
        place, tag = _place(where, (*location, kind)), str(first["ctx"]["tag"])
        return SettingsError(place, f"unknown {kind} '{tag}'", choice_of(tag, known))
    path = _path(location, content)
    place = _place(where, path)
    if first["type"] == "extra_forbidden":
        known = list(_owner(model, path[:-1], content).model_fields)
        return SettingsError(place, "unknown key", choice_of(str(path[-1]), known))
    if first["type"] == "value_error":
        problem, _, remedy = first["msg"].removeprefix("Value error, ").partition("; ")
        return SettingsError(place, problem, remedy or "correct it")
    # Each branch of a union has its own message.
    messages = [
        each["msg"] for each in error.errors() if _path(_without_tags(each["loc"], content), content) == path
    ]
    problem = f"{first['input']!r} is not accepted ({', or '.join(messages)})"
    return SettingsError(place, problem, "correct the value")


def _tags(context: dict[str, Any]) -> list[str]:
    """The key that decides between the branches of a union, and the values that it may have."""
    return [context["discriminator"], *context["expected_tags"].split(", ")]


def _place(where: str | Path, path: Location) -> str:
    return f"{where}: {'.'.join(map(str, path))}" if path else str(where)


def _without_tags(location: Location, content: Any) -> Location:
    """``location`` without the tags that pydantic adds where a key decides between branches of a union."""
    path: Location = ()
    for part in location:
        if isinstance(content, dict) and part not in content and part in content.values():
            continue
        path += (part,)
        content = _inside(content, part)
    return path


def _inside(content: Any, part: str | int) -> Any:
    try:
        return content[part]
    except (LookupError, TypeError):
        return None


def _path(location: Location, content: Any) -> Location:
    """The keys of ``location`` that lead somewhere in ``content``: pydantic adds names of union branches."""
    for depth, part in enumerate(location):
        try:
            content = content[part]
        except (LookupError, TypeError):
            return location[:depth]
    return location


def _owner(model: type[Settings], location: Location, content: Any) -> type[Settings]:
    """The settings class at ``location``; keys of dicts and indices of lists lead to the class of values."""
    annotation: Any = model
    for part in location:
        content = _inside(content, part)
        if part in model.model_fields:
            annotation = model.model_fields[part].annotation
        model = _fitting(_settings_in(annotation), content)
    return model


def _fitting(models: Sequence[type[Settings]], content: Any) -> type[Settings]:
    """The class whose tags are those of the content, or else the first."""

    def fits(model: type[Settings]) -> bool:
        tags = {
            name: get_args(field.annotation) for name, field in model.model_fields.items() if _is_tag(field)
        }
        return all(_inside(content, name) in values for name, values in tags.items())

    return next(filter(fits, models), models[0])


def _is_tag(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _settings_in(annotation: Any) -> list[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [found for each in get_args(annotation) for found in _settings_in(each)]
