"""The typed configuration: one model per section, strict YAML, dotted overrides.

A config file holds one mapping per section (``model``, ``lora``, ``sft``, ``reward``, ``dpo``, ``policy``,
``evaluate``, ``gates``, ``checkpoint``, ``logging``) and a ``seed``; a classic agent's is flat. An unknown key or a
wrong value is refused with the field, the value and what is allowed.
"""

from pipeline.config.agents import (
    AGENTS,
    A2cConfig,
    AgentConfig,
    AlphaZeroConfig,
    DqnConfig,
    Exploring,
    OnPolicyConfig,
    PpoConfig,
    ReinforceConfig,
    TabularConfig,
    TrainedConfig,
)
from pipeline.config.base import OptimizerName
from pipeline.config.data import DataConfig
from pipeline.config.evaluation import EvaluateConfig, OtherSystem
from pipeline.config.grid import Grid, Point, load_grid
from pipeline.config.judges import (
    EnsembleJudgeConfig,
    HumanJudgeConfig,
    JudgeConfig,
    LengthJudgeConfig,
    LlmJudgeConfig,
    LocalLlmJudgeConfig,
    RewardModelJudgeConfig,
    RubricCheck,
    RubricJudgeConfig,
)
from pipeline.config.policy import AlarmConfig, PolicyConfig, SamplingConfig
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
from pipeline.config.rewards import RewardTerm
from pipeline.config.sections import (
    CheckpointConfig,
    Config,
    GateName,
    GatesConfig,
    LoggingConfig,
    LoraSection,
    ModelConfig,
)
from pipeline.config.supervised import DpoConfig, FitConfig, LoopConfig, RewardConfig, SftConfig

__all__ = [
    "AGENTS",
    "A2cConfig",
    "AgentConfig",
    "AlarmConfig",
    "AlphaZeroConfig",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DpoConfig",
    "DqnConfig",
    "EnsembleJudgeConfig",
    "EvaluateConfig",
    "Exploring",
    "FitConfig",
    "GateName",
    "GatesConfig",
    "Grid",
    "HumanJudgeConfig",
    "JudgeConfig",
    "LengthJudgeConfig",
    "LlmJudgeConfig",
    "LocalLlmJudgeConfig",
    "LoggingConfig",
    "LoopConfig",
    "LoraSection",
    "ModelConfig",
    "OnPolicyConfig",
    "OptimizerName",
    "OtherSystem",
    "Point",
    "PolicyConfig",
    "PpoConfig",
    "ReinforceConfig",
    "RewardConfig",
    "RewardModelJudgeConfig",
    "RewardTerm",
    "RubricCheck",
    "RubricJudgeConfig",
    "SamplingConfig",
    "SftConfig",
    "TabularConfig",
    "TrainedConfig",
    "agent_file",
    "apply_overrides",
    "dump_config",
    "load_agent",
    "load_config",
    "load_grid",
    "parse_config",
    "read_agent",
]
