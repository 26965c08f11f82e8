#!/usr/bin/env python3
"""How fast Hugging Face transformers decodes a Llama of the dimensions of `transformer:16`: what
`lossfloor bench decode transformer:16 --prompt 2000 --new 1000` is compared with, in the same minute on the same GPU.

    pip install torch transformers
    python scripts/bench_decode_transformers.py --batches 1,16

Random weights, bf16, greedy, static cache; generate() compiles the step with torch.compile. Tokens/s are those of the
steps after the first token: the time of one token is taken off.
"""
import argparse, json, time
import torch
import transformers

parser = argparse.ArgumentParser()
parser.add_argument("--batches", default="1,16")
parser.add_argument("--prompt", type=int, default=2000)
parser.add_argument("--new", type=int, default=1000)
args = parser.parse_args()

config = transformers.LlamaConfig(
    hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=4,
    vocab_size=32000, max_position_embeddings=65536, tie_word_embeddings=False)
with torch.device("cuda"):
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()


def seconds(ids, new):
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, cache_implementation="static",
                       min_new_tokens=new, max_new_tokens=new, pad_token_id=0, eos_token_id=None)
    torch.cuda.synchronize()
    return time.perf_counter() - start


rows = []
for batch in map(int, args.batches.split(",")):
    ids = torch.randint(0, 32000, (batch, args.prompt), device="cuda")
    seconds(ids, args.new), seconds(ids, args.new)  # compiles
    first = min(seconds(ids, 1) for _ in range(2))
    step = (min(seconds(ids, args.new) for _ in range(2)) - first) / (args.new - 1)
    rows.append({"batch": batch, "step_ms": 1e3 * step, "tokens_per_s": batch / step})
print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                  "transformers": transformers.__version__, "parameters": model.num_parameters(), "rows": rows}))
