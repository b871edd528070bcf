"""Language models: one frozen base, named adapters, sampling, scoring."""

import logging
import warnings

from transformers.utils import logging as transformers_logging

# Our own progress bars tell how far a run is; the libraries' bars and notes about optional kernels would bury them.
transformers_logging.disable_progress_bar()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
warnings.filterwarnings("ignore", message=".*base_model_name_or_path.*was renamed.*")
