"""Files of named tensors: safetensors with a header and a checksum, and PyTorch's .pth read within bounds.

Files are not trusted: the claimed contents are checked against the file size, and any exception of a reader becomes one line.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from data.files import replacing
from errors import InputError

FORMAT, UNCHECKED = "mtdo-stno-2", "mtdo-stno-1"  # the first has a checksum
NESTED = ("state_dict", "model", "params_ema", "params", "net")  # keys under which training scripts keep the state dict


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write `tensors` and a JSON header to `path`: write a temporary file, flush it to disk, rename it.

    Raises `InputError` if the file cannot be written; an existing file at `path` is then unchanged.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header)
    metadata = {"format": FORMAT, "header": text, "checksum": checksum(text, plain)}
    content = safetensors.torch.save(plain, metadata)  # its save_file leaves its own temporary file when it is killed
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a safetensors file. Raises `InputError` for a missing, truncated, damaged or foreign file."""
    path = _regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: Windows cannot replace a mapped file (`last.safetensors` after --resume), and reading a mapped file that
            # another process has truncated kills this one.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no dict)
        text = metadata.get("header", "{}")
        header = json.loads(text)
    except (Exception, MemoryError) as error:  # a damaged file may raise almost any exception, from four libraries
        text = text_in(path)
        if text:
            raise InputError(f"'{path}' is text, not weights: it begins with '{text}': download it again") from None
        raise InputError(f"'{path}' is not a readable safetensors file ({error}): copy it again") from None
    if not isinstance(header, dict):
        raise InputError(f"'{path}': its header is not a mapping: expected weights written by this project")
    ours = {"header", "checksum"} & metadata.keys() and metadata.get("format") != UNCHECKED
    if ours and (metadata.get("format") != FORMAT or metadata.get("checksum") != checksum(text, tensors)):
        raise InputError(f"'{path}' is damaged: its checksum does not match its content: copy it again")
    return tensors, header


def checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of the header, the names, types, shapes and bytes: any flipped bit changes it."""
    value = zlib.crc32(header.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def load_pth(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a .pth, .pt or .ckpt file, read without running code (`weights_only=True`).

    Raises `InputError` for text, for damaged files, for other objects than tensors, and if the tensors need more memory than
    the file has bytes (compressed archives, expanded views).
    """
    path = _regular(path)
    text = text_in(path)
    if text:
        raise InputError(f"'{path}' is text, not weights: it begins with '{text}': download it again")
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        _check_archive(path, size)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (Exception, MemoryError):  # a damaged pickle may raise almost any exception
        raise InputError(
            f"'{path}' is damaged or holds more than tensors: expected a state dict of published weights"
        ) from None
    for key in NESTED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not all(isinstance(k, str) and _is_plain(t) for k, t in state.items()):
        raise InputError(f"'{path}' contains no state dict of tensors: expected published MTDO or STNO weights")
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > 2 * size:
        raise InputError(f"'{path}' claims tensors larger than the file itself: it is damaged or made to fill memory")
    return state


def text_in(path: Path) -> str:
    """The first words of a text file (a failed download leaves a page or a message), else an empty string."""
    with path.open("rb") as file:
        start = file.read(256)
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return ""
        text = start[: error.start].decode("utf-8")
    return " ".join(text.split())[:60] if text and all(c.isprintable() or c.isspace() for c in text) else ""


def _regular(path: str | Path) -> Path:
    path = Path(path)
    try:
        if path.is_file():
            return path
        missing = not path.exists()
    except (OSError, ValueError) as error:  # the name is too long or has a null byte
        raise InputError(f"weights file '{str(path)[:80]}': {error}") from None
    raise InputError(
        f"weights file '{path}' {'does not exist' if missing else 'is not a regular file'}: check its path"
    )


def _check_archive(path: Path, size: int) -> None:
    """PyTorch stores its records uncompressed: an archive that unpacks to more than its size was not written by it."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise InputError(f"'{path}' is a damaged archive: copy it again") from None
    if unpacked > size:
        raise InputError(f"'{path}' is a compressed archive, which PyTorch does not write: expected a state dict")


def _is_plain(tensor: Any) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )
