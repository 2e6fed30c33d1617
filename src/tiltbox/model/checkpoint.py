"""Reads checkpoints: tiltbox's own, mmengine's, and mmyolo's with their different names for the head.

A checkpoint may come from anywhere, so it is unpickled without running any code it names: tensors and plain
containers are built; every other object is replaced by an inert stand-in.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, Self, TypeGuard
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from tiltbox.errors import CheckpointError, DataError, OutputError
from tiltbox.files.atomic import atomic_file
from tiltbox.files.transfer import BrokenOffError, Patience, is_web_page, transfer
from tiltbox.model.variant import PARTS

CLASSIFIER = "bbox_head.rtm_cls."  # depends on the number of classes
MOST_NAMED = 12  # entries of a part in a message
ANGLE = "bbox_head.rtm_ang."  # missing in detectors of upright boxes
# Weights are downloaded while a user waits for a command to begin, on machines that may have no network.
# Firewalls often do not refuse a connection but never answer.
PATIENCE = Patience(attempts=2, connect=5, answer=15)


@dataclass(frozen=True)
class StartReport:
    """What a new training took from a checkpoint: keys that were loaded, left out, or left at random."""

    loaded: int
    left_out: tuple[str, ...]
    random: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.loaded} entries loaded"
        if self.left_out:
            text += f"; left out, since they do not fit: {_listed(self.left_out)}"
        if self.random:
            text += f"; not in the checkpoint, left at random: {_listed(self.random)}"
        return text


def _listed(keys: Sequence[str]) -> str:
    """All keys by name, or, of parts with many, their number."""
    of_part = Counter(key.partition(".")[0] for key in keys)
    many = {part: number for part, number in of_part.items() if number > MOST_NAMED}
    few = [key for key in keys if key.partition(".")[0] not in many]
    return ", ".join([*(f"{number} entries of {part}" for part, number in many.items()), *few])


def save_checkpoint(path: Path, weights: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write weights and their meta data (variant, classes, image_size, …) whole or not at all."""
    with atomic_file(path) as temporary:
        torch.save({"state_dict": weights, "meta": meta}, temporary)


def read_checkpoint(source: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights under this project's key names, and the meta data, of a file or an http(s) address.

    Raises:
        CheckpointError: It cannot be read, or contains no weights, or contains some that are not finite.
    """
    path = local_copy(source)
    kept = path != Path(source)  # in the cache, which would be used forever
    remedy = f"delete it, so that {source} is downloaded again" if kept else "download or train it again"
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_INERT_PICKLE)
    except FileNotFoundError:
        raise CheckpointError(path, "checkpoint not found", "check the path") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            path, f"is not a readable checkpoint ({_reason(path, error)})", remedy
        ) from None
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not _are_weights(weights):
        raise CheckpointError(path, "contains no weights", "give a checkpoint with a 'state_dict'")
    if odd := [key for key, value in weights.items() if not torch.isfinite(value).all()]:
        problem = f"contains weights that are not finite (such as {min(odd)}), so its training diverged"
        raise CheckpointError(path, problem, "train it again with a lower base_lr")
    meta = content.get("meta")
    return {_own_key(key): value for key, value in weights.items()}, meta if isinstance(meta, dict) else {}


def _are_weights(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Whether it is tensors by name, at least one."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _reason(path: Path, error: Exception) -> str:
    if is_web_page(path):
        return "it is a web page"
    return str(error).partition("\n")[0] or type(error).__name__


def load_exactly(
    model: nn.Module, source: str | Path, variant: str, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Load a checkpoint that must fit the detector in every key and shape; returns its meta data.

    Args:
        classes: The classes to detect; compared if the checkpoint says what it was trained on.

    Raises:
        CheckpointError: It belongs to another variant or to other classes.
    """
    weights, meta = read_checkpoint(source)
    if meta.get("variant", variant) != variant:
        raise CheckpointError(source, f"was trained as {meta['variant']}, not {variant}", "name that variant")
    if classes is not None and list(meta.get("classes", classes)) != list(classes):
        problem = f"was trained on other classes ({', '.join(map(str, meta['classes']))})"
        raise CheckpointError(source, problem, "give the dataset it was trained on with --dataset")
    own = model.state_dict()
    odd = _differences(own, weights)
    if odd and all(key.startswith(CLASSIFIER) for key in odd):
        got, expected = (len(state[f"{CLASSIFIER}0.bias"]) for state in (weights, own))
        raise CheckpointError(
            source, f"has {got} classes, not {expected}", "give the dataset it was trained on"
        )
    if odd:
        raise CheckpointError(
            source, f"does not fit {variant} ({_examples(odd)})", "name the variant that it belongs to"
        )
    model.load_state_dict(weights)
    return meta


def start_from(model: nn.Module, source: str | Path, parts: Sequence[str] = PARTS) -> StartReport:
    """Start a training from a checkpoint that may have other classes or upright boxes.

    Args:
        parts: Parts of the detector that the checkpoint must fill; entries of others are taken if they fit.

    Raises:
        CheckpointError: Anything in these parts besides the classifier and the angle branch does not fit.
    """
    weights, _ = read_checkpoint(source)
    own = model.state_dict()
    odd = _differences(own, weights)
    filled = [key for key in odd if key.partition(".")[0] in parts]
    strangers = [key for key in filled if not key.startswith((CLASSIFIER, ANGLE))]
    if strangers:
        raise CheckpointError(
            source, f"is of another model ({_examples(strangers)})", "give the variant's own"
        )
    fitting = {key: value for key, value in weights.items() if key not in odd}
    model.load_state_dict(fitting, strict=False)
    left_out = tuple(sorted(key for key in odd if key in weights))
    random = tuple(sorted(key for key in odd if key not in weights))
    return StartReport(len(fitting), left_out, random)


def _differences(own: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Keys that one side lacks or that have different shapes."""
    return [
        key
        for key in own.keys() | other.keys()
        if key not in own or key not in other or own[key].shape != other[key].shape
    ]


def _examples(keys: list[str]) -> str:
    return f"{len(keys)} entries differ, such as {min(keys)}"


def _own_key(key: str) -> str:
    """mmyolo puts the head's layers into a ``head_module``; parallel training prefixes ``module.``."""
    return key.removeprefix("module.").replace("bbox_head.head_module.", "bbox_head.")


def is_address(source: str | Path) -> bool:
    return str(source).lower().startswith(("http://", "https://"))


def local_copy(source: str | Path, patience: Patience = PATIENCE) -> Path:
    """The file itself, or the copy of an http(s) address in PyTorch's cache, downloaded if necessary.

    An existing copy is used without asking the server: if the weights at an address change, delete the copy.

    Raises:
        CheckpointError: The server does not answer, or the answer is not a checkpoint.
        OutputError: The cache cannot be written.
    """
    copy = _place(source)
    if not is_address(source) or copy.is_file():
        return copy
    try:
        return transfer(source, copy, accepts=_may_be_checkpoint, patience=patience)
    except DataError as error:
        again = f"{error.remedy}; or " if isinstance(error, BrokenOffError) else ""
        remedy = f"{again}download it on another machine and put it at {copy}"
        raise CheckpointError(source, error.problem, remedy) from None
    except OutputError as error:
        raise OutputError(error.where, error.problem, "set TORCH_HOME to a folder with space") from None


def copy_at_hand(source: str | Path) -> Path | None:
    """The file, or the cached copy of an address, if it exists; nothing is downloaded."""
    copy = _place(source)
    return copy if copy.is_file() else None


def _place(source: str | Path) -> Path:
    if not is_address(source):
        return Path(source)
    return Path(torch.hub.get_dir()) / "checkpoints" / "tiltbox" / _cached_name(str(source))


def _may_be_checkpoint(path: Path) -> bool:
    """Whether it is a complete archive, or a pickle as older versions of PyTorch wrote it."""
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO or zipfile.is_zipfile(file)


def _cached_name(address: str) -> str:
    """A readable name that is different for each address: many end in ``train/checkpoint.pth``."""
    last = PurePosixPath(urlsplit(address).path).name or "weights"
    return f"{hashlib.sha256(address.encode()).hexdigest()[:12]}_{last}"


class _Inert:
    """Stands in for any object of a checkpoint that is neither a tensor nor plain data."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> Self:
        return self

    def __setitem__(self, key: object, value: object) -> None:
        pass

    append = extend = add = update = __call__


class _InertUnpickler(pickle.Unpickler):
    #: Everything that may be called. A name with a dot could lead from here into any module.
    HARMLESS = frozenset(
        {
            ("collections", "OrderedDict"),
            ("torch._utils", "_rebuild_tensor"),
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_parameter"),
            ("torch.serialization", "_get_layout"),
        }
    )

    def find_class(self, module: str, name: str) -> object:
        storage = module in ("torch", "torch.storage") and name.endswith("Storage") and "." not in name
        if storage or (module, name) in self.HARMLESS:
            return super().find_class(module, name)
        return _Inert


_INERT_PICKLE = SimpleNamespace(
    Unpickler=_InertUnpickler,
    load=lambda file, **kwargs: _InertUnpickler(file, **kwargs).load(),
    __name__="inert",
)
