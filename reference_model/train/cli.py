"""``referee train RECIPE``: the front of the training loop. Imports without torch."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from audit.contracts import Command, Exit, InputError
from reference_model import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help=f"one of {', '.join(config.names())}, or a .toml file")
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DIR", help="folder with train and val shards"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where logs and checkpoint go")
    parser.add_argument("--seconds", type=float, help="training clock (0: steps alone decide)")
    parser.add_argument("--steps", type=int, help="number of steps")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change any recipe key",
    )
    parser.add_argument("--shrink", action="store_true", help="the recipe's parts at a size for a CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--threads", type=int, help="CPU threads (default: what torch chooses)")
    parser.add_argument(
        "--deterministic", action="store_true", help="bit-identical repetition, slower on GPUs"
    )
    parser.add_argument("--tensorboard", action="store_true", help="write OUT/tensorboard as well")
    parser.add_argument("--quiet", action="store_true", help="no progress display")
    parser.add_argument("--fresh", action="store_true", help="ignore OUT/resume.pt of an interrupted run")


def run(args: argparse.Namespace) -> int:
    overrides = list(args.overrides)
    for name, key in (("seconds", "schedule.seconds"), ("steps", "schedule.steps"), ("seed", "run.seed")):
        if getattr(args, name) is not None:
            overrides.append(f"{key}={getattr(args, name)}")
    if args.steps is not None and args.seconds is None:
        overrides.append("schedule.seconds=0")
    recipe = config.load(args.recipe, [] if args.shrink else overrides)
    if args.shrink:
        recipe = config.change(config.shrink(recipe), overrides)
    if args.tensorboard:
        _need_tensorboard()

    # Threads that wait for each other by spinning make a busy machine many times slower; read at load time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from reference_model.train import ranks as rank_module
    from reference_model.train.logs import Logs
    from reference_model.train.loop import Trainer

    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is visible to torch")
    if args.threads:
        torch.set_num_threads(args.threads)
    ranks = rank_module.start(args.device)
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    resume = (out / "resume.pt").is_file() and not args.fresh
    if args.fresh and ranks.first:
        (out / "resume.pt").unlink(missing_ok=True)
    ranks.barrier()
    folder = out if ranks.first else None
    try:
        with Logs(folder, resume=resume, quiet=args.quiet, board=args.tensorboard and ranks.first) as logs:
            trainer = Trainer(recipe, args.data, out, ranks, logs, deterministic=args.deterministic)
            outcome = trainer.run()
            if outcome.interrupted is not None:
                logs.say(f"interrupted at step {outcome.steps}; run the same command again to go on")
                return 128 + outcome.interrupted
            before = f"{outcome.first_bpb:.4f} -> " if outcome.first_bpb is not None else ""
            after = f"{outcome.last_bpb:.4f} bits per byte, " if outcome.last_bpb is not None else ""
            logs.say(
                f"{before}{after}{outcome.steps} steps in {outcome.seconds:.1f} s "
                f"({outcome.steps * recipe.data.batch_tokens / max(outcome.seconds, 1e-9):,.0f} tokens/s); "
                f"wrote {outcome.checkpoint}"
            )
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"out of memory with {recipe.data.micro_tokens or recipe.data.batch_tokens} tokens a forward pass; "
            f"lower it with --set micro_tokens=N ({str(error).splitlines()[0][:120]})"
        ) from None
    finally:
        if ranks.world > 1:
            torch.distributed.destroy_process_group()
    return int(Exit.OK)


def _need_tensorboard() -> None:
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "--tensorboard needs the package tensorboard; install it with: pip install tensorboard"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


COMMAND = Command(
    name="train",
    help="train a recipe on a folder of token shards",
    add_arguments=add_arguments,
    run=run,
    extra="train",
    epilog=(
        "examples:\n"
        "  referee train demo --data DIR --out runs/demo --seconds 60\n"
        "  referee train pr1072 --shrink --data DIR --out runs/small --steps 50\n"
        "  torchrun --standalone --nproc_per_node=8 -m reference_model train pr726 --data DIR --out runs/pr726"
    ),
)
