"""The typed configuration: one model per section, strict YAML, dotted overrides.

A config file holds one mapping per section (``model``, ``lora``, ``sft``, ``reward``, ``policy``,
``evaluate``, ``logging``) and a ``seed``. An unknown key or a wrong value is refused with the field, the value
and what is allowed.
"""

from pipeline.config.reading import ConfigError, apply_overrides, dump_config, load_config, parse_config
from pipeline.config.sections import (
    Config,
    DataConfig,
    EvaluateConfig,
    FitConfig,
    LoggingConfig,
    LoraSection,
    ModelConfig,
    PolicyConfig,
    RewardConfig,
    SamplingConfig,
    SftConfig,
)

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluateConfig",
    "FitConfig",
    "LoggingConfig",
    "LoraSection",
    "ModelConfig",
    "PolicyConfig",
    "RewardConfig",
    "SamplingConfig",
    "SftConfig",
    "apply_overrides",
    "dump_config",
    "load_config",
    "parse_config",
]
