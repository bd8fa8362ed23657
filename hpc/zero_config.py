"""DeepSpeed's own settings: what this config makes of them, a user's JSON merged in, and every refusal.

Imports neither torch nor DeepSpeed, so that a wrong file fails before the queue. The engine is `hpc/zero.py`.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.config import Config
from hpc.errors import UserError

# One norm for a whole tensor decides the step of these; ZeRO cuts tensors between the ranks.
WHOLE_TENSORS = ("lamb", "novograd")

# Dotted keys of DeepSpeed that this config decides -> the key that does. A file may repeat our value, not change it.
OURS = {
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
    "zero_optimization.cpu_offload_params": "engine.deepspeed.offload",
    "zero_optimization.contiguous_gradients": "engine.deepspeed.stage",
    "zero_optimization.compute_grad_norm": "optim.clip",
}

# Features that change the numbers of a run, its data or its layout, need a compiler, or end the process.
FOREIGN = (
    *("sparse_gradients", "sparse_attention", "progressive_layer_drop", "eigenvalue", "curriculum_learning"),
    *("data_efficiency", "compression_training", "quantize_training", "elasticity", "autotuning", "aio"),
    *("pipeline", "tensor_parallel", "sequence_parallel_size", "expert_parallel", "hybrid_engine", "compile"),
    *("checkpoint", "nebula", "seq_parallel_communication_data_type", "use_data_before_expert_parallelism"),
    *(
        "zero_optimization.zenflow",
        "zero_optimization.super_offload",
        "zero_optimization.zero_quantized_weights",
    ),
    *("zero_optimization.zero_quantized_nontrainable_weights", "zero_optimization.zero_quantized_gradients"),
    *("zero_optimization.zero_hpz_partition_size", "zero_optimization.round_robin_gradients"),
    *("zero_optimization.mics_shard_size", "zero_optimization.parameter_alignment"),
    *("zero_optimization.fp16_master_weights_and_gradients", "zero_optimization.leaf_module"),
)

OFF = (None, False, "none", {"enabled": False})  # a feature named, and not asked for


def check(config: Config) -> None:
    """Raise UserError for a config that DeepSpeed cannot run, or would run with other numbers."""
    ours = config.engine.deepspeed
    if config.engine.name != "deepspeed":
        if ours.config or ours.offload:
            raise UserError(
                f"engine.deepspeed.* says nothing to engine={config.engine.name}: use engine=deepspeed"
            )
        return
    if ours.stage and config.optim.name in WHOLE_TENSORS:
        raise UserError(
            f"optim.name={config.optim.name} takes norms of whole tensors, which ZeRO cuts between the ranks: "
            "use engine.deepspeed.stage=0, engine=ddp or optim.name=adamw"
        )
    if ours.offload and not ours.stage:
        raise UserError("engine.deepspeed.offload=true needs ZeRO: use engine.deepspeed.stage=1, 2 or 3")
    if ours.offload and config.optim.impl == "apex":
        raise UserError(
            "engine.deepspeed.offload=true steps on the CPU, where Apex has no kernels: use optim.impl=torch"
        )
    if config.compile:
        raise UserError(
            "compile=true is not shown right under DeepSpeed's hooks: use compile=false or engine=ddp"
        )
    settings(config)


def settings(config: Config) -> dict[str, Any]:
    """The dictionary that DeepSpeed is built with: ours and `engine.deepspeed.config`; UserError where they differ."""
    made = _ours(config)
    path = config.engine.deepspeed.config
    if path:
        _merge(made, _read(path))
    return made


def _ours(config: Config) -> dict[str, Any]:
    chosen = config.engine.deepspeed
    bucket = int(
        config.engine.bucket_mb * 2**20 / 4
    )  # of fp32 numbers; DeepSpeed's 500 million are 2 GB a rank
    zero: dict[str, Any] = {
        "stage": chosen.stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if chosen.stage == 1 and not chosen.offload:
        # Gradients stay in the parameters until the last micro batch, as under Flat: no hooks that could fire in
        # another player's pass.
        zero["contiguous_gradients"] = False
    if chosen.stage in (1, 2) and not chosen.offload:
        zero["compute_grad_norm"] = False  # the trainer takes the norm, once
    if chosen.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if chosen.stage == 3:
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
    """The config with the content of `engine.deepspeed.config` in place of its path: a run depends on no file."""
    chosen = config.engine.deepspeed
    if config.engine.name != "deepspeed" or not chosen.config:
        return config
    chosen = dataclasses.replace(chosen, config=json.dumps(_read(chosen.config)))
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, deepspeed=chosen))


def _read(path: str) -> dict[str, Any]:
    """The object in a file, or in the text itself where that is one."""
    try:
        found = json.loads(path if path.lstrip().startswith("{") else Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"engine.deepspeed.config={path} cannot be read ({reason}): give a JSON file"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"engine.deepspeed.config={path} holds no JSON object: write {{...}}")
    return found


def _merge(made: dict[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> None:
    """Put `theirs` into `made`, in place, key by key."""
    for key, value in theirs.items():
        full = f"{prefix}{key}"
        where = f"engine.deepspeed.config: {full}={json.dumps(value)}"
        if full in FOREIGN and value not in OFF:
            raise UserError(
                f"{where} is not supported, it changes what a run computes or needs: leave {full} out"
            )
        if full in OURS:
            if value != made.get(key) and (key in made or value not in OFF) and value != "auto":
                raise UserError(f"{where} contradicts this config: leave {full} out and set {OURS[full]}")
            continue
        if isinstance(value, Mapping) and (isinstance(made.get(key), dict) or _opens(full)):
            _merge(made.setdefault(key, {}), value, f"{full}.")
        elif full not in FOREIGN:
            made[key] = copy.deepcopy(value)


def _opens(full: str) -> bool:
    """Whether some key that is ours lies inside the object `full`."""
    return any(key.startswith(f"{full}.") for key in OURS)
