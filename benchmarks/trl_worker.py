"""One GRPO step of TRL at a time, in a process of its own: runs in an environment that has TRL and need not have pagellm.

    python -c "import trl_worker; trl_worker.work('FOLDER')"

FOLDER holds a Llama (`save_pretrained`) and `step.npz` with prompts and sizes. Each line on standard input asks for one step; each line on
standard output is its CPU time. What the first step did, for comparison, is written to FOLDER/first.npz.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

MOST_STEPS = 100_000


def work(folder: str) -> None:
    """Serves steps until standard input ends."""
    out = os.fdopen(os.dup(1), "w")  # libraries may print; the answers are ours
    os.dup2(2, 1)
    trainer, callback = make_trainer(Path(folder), out)
    trainer.add_callback(callback)
    trainer.train()


def make_tokenizer(vocabulary: int, eos: int, pad: int) -> Any:
    """Token n is the word n."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(n): n for n in range(vocabulary)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=str(eos), pad_token=str(pad))


def make_trainer(folder: Path, out: Any) -> tuple[Any, Any]:
    """(trainer, the callback that waits for requests between steps)."""
    import torch
    import transformers
    import trl
    from datasets import Dataset
    from transformers import LlamaForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    given = np.load(folder / "step.npz")
    special, slots, group = given["special"].tolist(), int(given["slots"]), int(given["group"])
    worth, first = given["worth"], {}

    class Trainer(GRPOTrainer):  # type: ignore[misc]
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            loss = super()._compute_loss(model, inputs)
            if "loss" not in first:
                context = (inputs["prompt_ids"].numpy()[:, None] == given["prompts"]).all(2).argmax(1)
                order = np.argsort(context, kind="stable")  # the trainer shuffles the pages of a step
                assert (np.bincount(context) == group).all(), "a context has another number of pages"
                first["loss"], first["logprobs"] = loss.detach().numpy(), first["logprobs"][order]
                first["advantages"], first["pages"] = (inputs[k].numpy()[order] for k in ("advantages", "completion_ids"))
            return loss

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            told = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            first.setdefault("logprobs", told[0].detach().numpy())
            return told

    class Wait(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.answer({"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__})

        def on_pre_optimizer_step(self, *args: Any, model: Any, **kwargs: Any) -> None:
            if "written" not in first:
                np.savez(folder / "first.npz", **first, **{f"grad {n}": p.grad.numpy() for n, p in model.named_parameters()})
                first["written"] = np.ones(1)

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.answer({"cpu": time.process_time() - self.began})

        def answer(self, told: dict[str, Any]) -> None:
            print(json.dumps(told), file=out, flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            self.began = time.process_time()

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(total) for total in worth[np.array(completion_ids)].sum(1)]

    prompts = [" ".join(map(str, row)) for row in given["prompts"].tolist()]
    config = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
        save_strategy="no", logging_strategy="no", max_steps=MOST_STEPS, per_device_train_batch_size=group * len(prompts),
        num_generations=group, max_completion_length=slots, pad_to_multiple_of=None, shuffle_dataset=False, beta=0.0, epsilon=0.2,
        loss_type="grpo", temperature=1.0, learning_rate=float(given["lr"]), max_grad_norm=1e9, adam_beta2=0.99,
        generation_kwargs={"suppress_tokens": special},
    )  # fmt: skip
    model = LlamaForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32)
    dataset = Dataset.from_dict({"prompt": prompts * 64})  # a pass over it is many steps
    tokenizer = make_tokenizer(len(worth), special[1], special[2])
    return Trainer(model=model, reward_funcs=reward, args=config, train_dataset=dataset, processing_class=tokenizer), Wait()
