"""Reading a data set from the Hugging Face hub."""

from __future__ import annotations

from pipeline.data.files import Records
from pipeline.data.rows import DataError


def open_hub(source: str, split: str, subset: str | None) -> tuple[str, Records]:
    """Download (or find in the cache) one split of a hub data set.

    Args:
        source: ``owner/name``.
        split: A split, also sliced as in ``train[:1000]``.
        subset: The hub's configuration name, where a data set has several.

    Returns:
        The fingerprint of the data, and its rows with places ``owner/name[split]:row``, counted from 1.

    Raises:
        DataError: If the hub cannot be reached, or has no such data set, subset or split.
    """
    import datasets

    try:
        table = datasets.load_dataset(source, subset, split=split)
    # The hub's clients raise a dozen unrelated types, which change with their versions.
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"{source!r} is not a file, and the hub did not give it (split {split!r}, subset {subset!r}): "
            f"{first_line}. Fix: check the name and the network, or download the data and give its path."
        ) from None
    rows = ((f"{source}[{split}]:{number}", dict(row)) for number, row in enumerate(table, start=1))
    return str(table._fingerprint), rows
