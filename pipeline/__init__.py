"""An RLHF pipeline for one machine: SFT → reward model → policy optimisation → win rates."""

import os

__version__ = "0.1.0"

# Nothing phones home: the libraries' usage statistics are off unless the user has decided otherwise.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")
# Tokenizers are used before worker processes fork; saying so silences a warning on every run.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
