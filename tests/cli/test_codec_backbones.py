"""A thought in the vectors of a codec, carried by a language model with adapters."""

import torch
from command import TINY, newest, succeeds

from pretrained_models import write_model
from remask.finished import open_model

SMALL = [part for part in TINY if not part.startswith(("data.length", "evaluation.rows", "network."))]
SMALL += ["data.max_documents=40", "evaluation.rows=4", "data.length=36"]


def test_a_language_model_thinks_in_the_vectors_of_a_codec(home, tmp_path):
    backbone = write_model(tmp_path / "backbone", "qwen2")
    text = ["tokenizer.kind=huggingface", f"tokenizer.name={backbone}"]
    own = ["network.length=28", "network.latent_width=4", "network.width=32", "network.layers=1", "network.heads=2"]
    succeeds("train", "thought-codec", *SMALL, *text, *own)
    codec = newest(home)[0].id
    adapted = ["network.kind=thought_pretrained", f"network.name={backbone}", "network.adaptation=lora"]
    given = [f"network.codec={codec}", "network.saved=adapters", "network.lora_rank=2"]
    succeeds("train", "thought-vae", *SMALL, *text, *adapted, *given)
    (line,) = succeeds("sample", "last", "--prompt", "1+2+3?", "--json").objects
    assert line["text"].startswith("1+2+3?")
    network = open_model("last", device=torch.device("cpu"))[0].network
    assert float(network.codec.scale.detach()) != 1.0
