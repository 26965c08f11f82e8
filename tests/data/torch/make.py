#!/usr/bin/env python3
"""Writes the files of this folder: state dicts as PyTorch saves them, and beside each the same in safetensors.

    python3 -m venv venv && venv/bin/pip install torch numpy safetensors
    venv/bin/python tests/data/torch/make.py

The model is a transformer of four layers, four heads of four channels, two of keys and values, under the names of the
reference's state dict. Its numbers are drawn with a fixed seed.
"""
import pathlib
import zipfile
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
WIDTH, HEAD, HEADS, KV_HEADS, MLP, VOCABULARY, DEPTH = 12, 4, 4, 2, 12, 16, 4


def model(fused, dtype):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)
    q, kv = HEADS * HEAD, KV_HEADS * HEAD
    state = {"lm_head.weight": draw(VOCABULARY, WIDTH), "transformer.wte.weight": draw(VOCABULARY, WIDTH)}
    for layer in range(DEPTH):
        block = f"transformer.h.{layer}"
        state[f"{block}.norm_1.weight"] = draw(WIDTH)
        if fused:
            state[f"{block}.attn.attn.weight"] = draw(q + 2 * kv, WIDTH)
        else:
            for letter, rows in (("q", q), ("k", kv), ("v", kv)):
                state[f"{block}.attn.{letter}_proj.weight"] = draw(rows, WIDTH)
        state[f"{block}.attn.proj.weight"] = draw(WIDTH, q)
        state[f"{block}.norm_2.weight"] = draw(WIDTH)
        state[f"{block}.mlp.w1.weight"] = draw(2 * MLP, WIDTH)
        state[f"{block}.mlp.w3.weight"] = draw(WIDTH, MLP)
    state["transformer.ln_f.weight"] = draw(WIDTH)
    return state


def plain():
    """A state dict alone, in fp32."""
    state = model(fused=False, dtype=torch.float32)
    save_file(state, HERE / "plain.safetensors")
    torch.save(state, HERE / "plain.pth")
    # Pickles of the newest protocol have other instructions.
    torch.save(state, HERE / "protocol_5.pt", pickle_protocol=5)
    return state


def checkpoint():
    """A training program's file: the state dict of a compiled model in bf16, fused and tied, beside other things."""
    state = model(fused=True, dtype=torch.bfloat16)
    del state["transformer.wte.weight"]
    save_file(state, HERE / "checkpoint.safetensors")
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    parameter.sum().backward()
    optimizer.step()
    wrapped = torch.nn.Module()
    for name, tensor in state.items():
        wrapped.register_buffer(f"_orig_mod.{name}".replace(".", "/"), tensor)
    compiled = wrapped.state_dict()  # an OrderedDict with attributes
    for name in list(compiled):
        compiled[name.replace("/", ".")] = compiled.pop(name)
    # The output matrix again, under its other name: the same storage.
    compiled["_orig_mod.transformer.wte.weight"] = compiled["_orig_mod.lm_head.weight"].view(VOCABULARY, WIDTH)
    hparams = {"train": True, "lr": 1e-3, "path": pathlib.Path("out"), "betas": (0.9, 0.95), "large": 2**70, "set": {1}}
    saved = {"optimizer": optimizer.state_dict(), "hparams": hparams, "iter_num": 70000, "model": compiled}
    torch.save(saved, HERE / "checkpoint.ckpt")


def views(state):
    """Every tensor as a part of one storage, as parameters; two with attributes of their own."""
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    parts = torch.split(flat, [tensor.numel() for tensor in state.values()])
    state = {name: torch.nn.Parameter(part.view_as(tensor)) for (name, tensor), part in zip(state.items(), parts)}
    norm = state["transformer.ln_f.weight"] = state["transformer.ln_f.weight"].detach()
    state["lm_head.weight"].decay = norm.decay = False
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, HERE / "views.bin")


def refused():
    """What cannot be read."""
    name, matrix = "transformer.h.3.mlp.w3.weight", torch.arange(6.0).view(2, 3)
    torch.save({name: matrix.T}, HERE / "transposed.pth")
    torch.save({name: matrix.double()}, HERE / "double.pth")
    torch.save({name: matrix.to(torch.float8_e4m3fn)}, HERE / "float8.pth")
    torch.save({name: matrix}, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(3, 2), HERE / "module.pth")
    torch.save({name: matrix}, HERE / "small.pth")
    with zipfile.ZipFile(HERE / "small.pth") as source:
        entries = {entry: source.read(entry) for entry in source.namelist()}
    with zipfile.ZipFile(HERE / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, contents in entries.items():
            archive.writestr(entry, contents)
    with zipfile.ZipFile(HERE / "big_endian.pth", "w") as archive:
        for entry, contents in entries.items():
            archive.writestr(entry, b"big" if entry.endswith("byteorder") else contents)


views(plain())
checkpoint()
refused()
