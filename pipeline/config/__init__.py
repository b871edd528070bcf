"""The typed configuration: one model per section, strict YAML, dotted overrides.

A config file holds one mapping per section (``model``, ``lora``, ``sft``, ``reward``, ``policy``,
``evaluate``, ``checkpoint``, ``logging``) and a ``seed``; a classic agent's is flat. An unknown key or a wrong value
is refused with the field, the value and what is allowed.
"""

from pipeline.config.agents import (
    AGENTS,
    A2cConfig,
    AgentConfig,
    DqnConfig,
    Exploring,
    OnPolicyConfig,
    PpoConfig,
    ReinforceConfig,
    TabularConfig,
)
from pipeline.config.reading import (
    ConfigError,
    agent_file,
    apply_overrides,
    dump_config,
    load_agent,
    load_config,
    parse_config,
    read_agent,
)
from pipeline.config.sections import (
    CheckpointConfig,
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
    "AGENTS",
    "A2cConfig",
    "AgentConfig",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DqnConfig",
    "EvaluateConfig",
    "Exploring",
    "FitConfig",
    "LoggingConfig",
    "LoraSection",
    "ModelConfig",
    "OnPolicyConfig",
    "PolicyConfig",
    "PpoConfig",
    "ReinforceConfig",
    "RewardConfig",
    "SamplingConfig",
    "SftConfig",
    "TabularConfig",
    "agent_file",
    "apply_overrides",
    "dump_config",
    "load_agent",
    "load_config",
    "parse_config",
    "read_agent",
]
