"""GRPO steps of TRL one at a time, in a process of its own: runs in an environment that has TRL and need not have pagellm.

    python -c "import trl_worker; trl_worker.work()"

Each line on standard input is a request, each line on standard output its answer, as JSON:

    begin FOLDER   a new training from a Llama (`save_pretrained`) and `step.npz`, which holds prompts, sizes and what pages are worth:
                   `worth` [item], whose sum counts, or `theme` [item] and the name of a reward in `planted`; answers versions
    step           one step; answers its CPU seconds. What the first one did, for comparison, is written to FOLDER/first.npz
    fresh N        N pages for each context, as the model writes them now, written to FOLDER/fresh.npy
    stop           the end of this training
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from planted import PLANTED

MOST_STEPS = 100_000


def work() -> None:
    """Serves trainings, one after the other, until standard input ends."""
    out = os.fdopen(os.dup(1), "w")  # libraries may print; the answers are ours
    os.dup2(2, 1)
    while line := sys.stdin.readline():
        trainer, callback = make_trainer(Path(line.removeprefix("begin ").strip()), out)
        trainer.add_callback(callback)
        trainer.train()
        print(json.dumps({"stopped": True}), file=out, flush=True)


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

    given = dict(np.load(folder / "step.npz"))
    special, slots, group = given["special"].tolist(), int(given["slots"]), int(given["group"])
    first: dict[str, Any] = {}
    worth_of = lambda pages: given["worth"][pages].sum(1)  # noqa: E731
    if "theme" in given:
        worth_of = partial(PLANTED[str(given["planted"])], theme=given["theme"])

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

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = not self.answer({"cpu": time.process_time() - self.began})

        def answer(self, told: dict[str, Any]) -> bool:
            """Answers, serves what needs no step, and returns whether there is to be another step."""
            print(json.dumps(told), file=out, flush=True)
            while (asked := sys.stdin.readline().split()) and asked[0] == "fresh":
                write_fresh(int(asked[1]))
                print(json.dumps({"written": "fresh.npy"}), file=out, flush=True)
            if not asked:
                os._exit(0)
            self.began = time.process_time()
            return asked[0] == "step"

    @torch.no_grad()
    def write_fresh(pages: int) -> None:
        prompts = torch.from_numpy(given["prompts"]).long().repeat_interleave(pages, 0)
        length = {"max_new_tokens": slots, "min_new_tokens": slots}
        written = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, suppress_tokens=special, **length
        )
        np.save(folder / "fresh.npy", written[:, prompts.shape[1] :].numpy())

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(total) for total in worth_of(np.array(completion_ids))]

    prompts = [" ".join(map(str, row)) for row in given["prompts"].tolist()]
    config = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
        save_strategy="no", logging_strategy="no", max_steps=MOST_STEPS, per_device_train_batch_size=group * len(prompts),
        num_generations=group, max_completion_length=slots, pad_to_multiple_of=None, shuffle_dataset=False, beta=0.0, epsilon=0.2,
        loss_type="grpo", temperature=1.0, learning_rate=float(given["lr"]), max_grad_norm=float(given.get("clip", 1e9)),
        adam_beta2=0.99, seed=int(given.get("seed", 42)),
        generation_kwargs={"suppress_tokens": special},
    )  # fmt: skip
    model = LlamaForCausalLM.from_pretrained(folder / "llama", dtype=torch.float32)
    dataset = Dataset.from_dict({"prompt": prompts * 64})  # a pass over it is many steps
    tokenizer = make_tokenizer(int(given["items"]), special[1], special[2])
    return Trainer(model=model, reward_funcs=reward, args=config, train_dataset=dataset, processing_class=tokenizer), Wait()
