"""Composes DeepSpeed's own settings from a config and a user's JSON, and refuses what does not fit.

Imports neither torch nor DeepSpeed, so that a wrong file fails before the queue. The engine is
`hpc/engines/zero.py`.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import UserError
from hpc.config.optimizers import OPTIMIZERS
from hpc.config.players import every_optim
from hpc.config.schema import Config
from hpc.config.types import near

# Dotted keys of DeepSpeed that this config decides -> the key that does. A file may repeat our value, not
# change it.
DECIDED = {
    "train_batch_size": "batch",
    "train_micro_batch_size_per_gpu": "micro_batch",
    "gradient_accumulation_steps": "micro_batch",
    "managed_gradient_accumulation": "micro_batch",
    "optimizer": "optim.*",
    "scheduler": "optim.schedule",
    "gradient_clipping": "optim.clip",
    "fp16": "precision",
    "bf16": "precision",
    "amp": "precision",
    "torch_autocast": "precision",
    "data_types": "precision",
    "communication_data_type": "precision",
    "zero_allow_untested_optimizer": "optim.name",
    "zero_force_ds_cpu_optimizer": "optim.name",
    "zero_optimization.stage": "engine.deepspeed.stage",
    "zero_optimization.offload_optimizer.device": "engine.deepspeed.offload",
    "zero_optimization.offload_param.device": "engine.deepspeed.offload",
    "zero_optimization.cpu_offload": "engine.deepspeed.offload",
    "zero_optimization.cpu_offload_param": "engine.deepspeed.offload",
    "zero_optimization.contiguous_gradients": "engine.deepspeed.stage",
    "zero_optimization.compute_grad_norm": "optim.clip",
}

# What a file may set: how gradients and weights travel, and what is printed. Anything else would change what
# a run computes, need a compiler, or do nothing under this engine (DeepSpeed ignores top-level keys that it
# does not know).
ALLOWED = {
    *("steps_per_print", "wall_clock_breakdown", "memory_breakdown", "dump_state", "comms_logger"),
    "zero_optimization",
}
ALLOWED_ZERO = {
    *("reduce_scatter", "reduce_bucket_size", "use_multi_rank_bucket_allreduce", "allgather_partitions"),
    *("allgather_bucket_size", "allgather_sequential", "overlap_comm", "offload_param", "offload_optimizer"),
    *("sub_group_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"),
    *("stage3_model_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance"),
    *("stage3_use_all_reduce_for_fetch_params", "stage3_module_granularity_threshold"),
    *("stage3_allgather_sequential", "memory_efficient_linear", "ignore_unused_parameters"),
    *("stage3_gather_16bit_weights_on_model_save", "log_trace_cache_warnings", "enable_sanity_checks"),
}
ALLOWED_OFFLOAD = {
    "buffer_count",
    "buffer_size",
    "max_in_cpu",
    "pin_memory",
    "pipeline_read",
    "pipeline_write",
}
GROUPS = ("zero_optimization", "zero_optimization.offload_param", "zero_optimization.offload_optimizer")


def check(config: Config) -> None:
    """Raise UserError for a config that DeepSpeed cannot run, or would run with other numbers."""
    zero = config.engine.deepspeed
    if config.engine.name != "deepspeed":
        for item in dataclasses.fields(zero):
            value = getattr(zero, item.name)
            if value != item.default:
                raise UserError(
                    f"engine.deepspeed.{item.name}={value} has no effect on engine={config.engine.name}: use "
                    "engine=deepspeed, or leave it out"
                )
        return
    for place, optim in every_optim(config):
        if zero.stage and OPTIMIZERS[optim.name].whole_tensors:
            raise UserError(
                f"{place}.name={optim.name} takes norms of whole tensors, which ZeRO cuts between the "
                f"ranks: use engine.deepspeed.stage=0, engine=ddp or {place}.name=adamw"
            )
    if zero.offload and not zero.stage:
        raise UserError("engine.deepspeed.offload=true needs ZeRO: use engine.deepspeed.stage=1, 2 or 3")
    if config.compile:
        raise UserError(
            "compile=true is not shown right under DeepSpeed's hooks: use compile=false or engine=ddp"
        )
    settings(config)


def settings(config: Config) -> dict[str, Any]:
    """Merge our settings and `engine.deepspeed.config` for DeepSpeed; UserError where they differ."""
    made = _composed(config)
    path = config.engine.deepspeed.config
    if path:
        _merge(made, _read(path), config)
    return made


def _composed(config: Config) -> dict[str, Any]:
    block = config.engine.deepspeed
    # Counted in fp32 numbers; DeepSpeed's default of 500 million takes 2 GB a rank.
    bucket = int(config.engine.bucket_mb * 2**20 / 4)
    zero: dict[str, Any] = {
        "stage": block.stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if block.stage == 1 and not block.offload:
        # Gradients stay in the parameters until the last micro batch, as under Flat: no hooks that could fire
        # in another player's pass.
        zero["contiguous_gradients"] = False
    if block.stage in (1, 2) and not block.offload:
        zero["compute_grad_norm"] = False  # the trainer takes the norm, once
    if block.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if block.stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        # The loss of a micro batch carries its weight already.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # clipped as under every engine, by `optim.clip`
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeedCPUAdam is compiled when it is first used
        "steps_per_print": 10**9,
    }


def inlined(config: Config) -> Config:
    """Put the content of `engine.deepspeed.config` in place of its path, so that a run depends on no file."""
    block = config.engine.deepspeed
    if config.engine.name != "deepspeed" or not block.config:
        return config
    block = dataclasses.replace(block, config=json.dumps(_read(block.config)))
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, deepspeed=block))


def _read(path: str) -> dict[str, Any]:
    """Read the object in a file, or in the text itself if it is an object."""
    try:
        value = json.loads(path if path.lstrip().startswith("{") else Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"engine.deepspeed.config={path} cannot be read ({reason}): give a JSON file"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"engine.deepspeed.config={path} holds no JSON object: write {{...}}")
    return value


def _merge(made: dict[str, Any], given: Mapping[str, Any], config: Config, prefix: str = "") -> None:
    """Put `given` into `made`, in place, key by key."""
    known = {"": ALLOWED, "zero_optimization.": ALLOWED_ZERO}.get(prefix, ALLOWED_OFFLOAD)
    for key, value in given.items():
        full = f"{prefix}{key}"
        where = f"engine.deepspeed.config: {full}={json.dumps(value)}"
        if full in DECIDED:
            if not _agrees(full, value, made.get(key), config):
                raise UserError(f"{where} contradicts this config: leave {full} out and set {DECIDED[full]}")
        elif _off(value) and key not in known:
            continue  # a feature named, and not asked for
        elif key not in known:
            group = known | {name.removeprefix(prefix) for name in DECIDED if name.startswith(prefix)}
            raise UserError(
                f"{where} is not supported: it changes what a run computes, or does nothing here; leave it "
                f"out. {near(key, group)}"
            )
        elif full in GROUPS:
            if not isinstance(value, Mapping):
                raise UserError(f"{where} is not an object: write {{...}}")
            _merge(made.setdefault(key, {}), value, config, f"{full}.")
        elif value != "auto":  # ours, or DeepSpeed's own default
            made[key] = copy.deepcopy(value)


def _agrees(full: str, value: Any, made: Any, config: Config) -> bool:
    """Return whether a file gives one of our keys the value that this config gives it."""
    share = config.batch // (config.nodes * config.procs)
    micro = config.micro_batch or share
    same = {
        "train_batch_size": config.batch,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": -(-share // micro),
        "gradient_clipping": config.optim.clip,
    }
    if value == "auto" or (made is None and _off(value)):
        return True
    if full == "bf16":
        return isinstance(value, Mapping) and value.get("enabled") is True and config.precision == "bf16"
    return bool(value == same.get(full, made))


def _off(value: Any) -> bool:
    """Return whether `value` names a feature without asking for it."""
    if isinstance(value, Mapping):
        return value.get("enabled", True) in (False, "auto")
    return value in (None, False, "none", "auto")
