"""The mathematics of reinforcement learning from human feedback, as pure tensor functions.

Imports torch and the standard library only: no config, tokenizer, file, network or device choice. The
language stage and the gymnasium agents call the very same functions. Import from the module that owns the
formula: `rollout`, `tensors`, `returns`, `advantages`, `losses`, `kl`, `update`. `docs/algorithms.md` maps
equations to them.
"""
