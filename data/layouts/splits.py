"""Find training, validation and test folders by their common names."""

from __future__ import annotations

from pathlib import Path

from data.layouts.finders import has_own_splits
from data.layouts.listing import folders
from data.layouts.viso import is_viso
from errors import InputError

ALIASES = {
    "train": ("training_set", "train", "training"),
    "val": ("validation_set", "val_set", "val", "validation", "valid", "eval"),
    "test": ("test_set", "test", "testing", "eval"),
}


def enter_split(root: Path, split: str | None) -> list[tuple[Path, str, str]]:
    """Folders to search: (folder, prefix for clip names, beginning of the reason).

    Without a split a root that holds exactly one split folder is entered; with several the user has to choose.
    """
    if split is not None and split not in (*ALIASES, "all"):
        raise InputError(f"split is {split!r}: expected one of {', '.join(ALIASES)} or all")
    if not root.is_dir() or (root / "sequences").is_dir() or has_own_splits(root) or is_viso(root):
        return [(root, "", "")]  # vimeo90k and REDS name their splits themselves; a folder `train` of VISO holds trains
    known = {name for names in ALIASES.values() for name in names}
    present = {path.name: path for path in folders(root) if path.name.lower() in known}
    if not present:
        if split in (None, "all"):
            return [(root, "", "")]
        raise InputError(f"{root}: has no split '{split}' (folders {', '.join(ALIASES[split])}); leave the split out")
    if split == "all":
        return [(path, path.name, f"{path.name}/: ") for path in present.values()]
    if split is None:
        if len(present) > 1:
            raise InputError(f"{root}: holds {' and '.join(present)}; choose with split: train, val, test or all")
        path = next(iter(present.values()))
        return [(path, "", f"{path.name}/: ")]
    for alias in ALIASES[split]:
        for name, path in present.items():
            if name.lower() == alias:
                return [(path, "", f"{name}/: ")]
    raise InputError(f"{root}: has no split '{split}', only {', '.join(present)}")
