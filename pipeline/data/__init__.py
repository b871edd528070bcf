"""Reading, checking and splitting the text that alignment starts from. Knows no model and no tokenizer."""

from pipeline.data.loaders import Loaded, load
from pipeline.data.rows import BadRows, DataError, Reason
from pipeline.data.schema import Demonstration, Kind, Message, Preference, Prompt, Row
from pipeline.data.splits import assert_disjoint, leaks, split_by_prompt

__all__ = [
    "BadRows",
    "DataError",
    "Demonstration",
    "Kind",
    "Loaded",
    "Message",
    "Preference",
    "Prompt",
    "Reason",
    "Row",
    "assert_disjoint",
    "leaks",
    "load",
    "split_by_prompt",
]
