"""What DeepSpeed is told: the run's own options, and the stage that was asked for at launch."""

from __future__ import annotations

import os
from collections.abc import Mapping

from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs

from ascl_plugin.training.arguments import TrainArguments

STAGES = (1, 2, 3)


def zero_plugin(
    args: TrainArguments, environment: Mapping[str, str] = os.environ
) -> DeepSpeedPlugin:
    """DeepSpeed as the options of the run have it; of what was asked at launch, the stage alone.

    Args:
        args: of the run.
        environment: what `accelerate launch` tells the processes it starts.

    Raises:
        ImportError: deepspeed is not installed.
        ValueError: an option of the run, or of the launch, that is not supported with it.
    """

    def asked(name: str, default: str = "none") -> str:
        return environment.get(f"ACCELERATE_DEEPSPEED_{name}", default).lower()

    if args.cpu:
        raise ValueError(
            "--cpu is not supported with DeepSpeed: Accelerate would leave DeepSpeed out; without "
            "that option it runs on CPUs where no GPU is seen (CUDA_VISIBLE_DEVICES=)"
        )
    refused = {
        f"--cached_chunk {args.cached_chunk}": bool(args.cached_chunk),
        "--mixed_precision fp16": args.mixed_precision == "fp16",
        "deepspeed_config_file": asked("CONFIG_FILE") != "none",
        "offload_optimizer_device": asked("OFFLOAD_OPTIMIZER_DEVICE") != "none",
        "offload_param_device": asked("OFFLOAD_PARAM_DEVICE") != "none",
    }
    for name, given in refused.items():
        if given:
            raise ValueError(f"{name} is not supported with DeepSpeed; leave it out")
    stage = int(asked("ZERO_STAGE", "2"))
    if stage not in STAGES:
        raise ValueError(f"zero_stage {stage} is not supported; there are 1, 2 and 3")
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'this configuration needs `pip install "ascl-plugin[deepspeed]"`'
        ) from error

    plugin = DeepSpeedPlugin(
        zero_stage=stage,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        gradient_clipping=args.max_grad_norm or 0.0,
        zero3_init_flag=False,  # encoders are built as ever, and cut afterwards
    )
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": 1,  # for DeepSpeed's own figures, which are not shown
        "zero_force_ds_cpu_optimizer": False,
    }
    plugin.deepspeed_config["zero_optimization"] |= {
        "stage3_param_persistence_threshold": 0,
        "memory_efficient_linear": False,  # rounds otherwise under autocast
    }
    if args.mixed_precision == "bf16":  # as elsewhere: fp32 weights, sums and messages
        plugin.deepspeed_config["torch_autocast"] = {
            "enabled": True,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        }
    return plugin


def process_group() -> InitProcessGroupKwargs:
    """The backend that DeepSpeed's device sends with; Accelerate finds none on CPUs."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    # on CPUs it would compile, at every user's first start, what only inference asks for
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return InitProcessGroupKwargs(backend=get_accelerator().communication_backend_name())
