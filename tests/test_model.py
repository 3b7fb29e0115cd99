"""A whole model as a sampler sees it."""

import torch

from remask.generation import Trajectory
from remask.model import Model
from remask.objectives import NextToken
from remask.processes import Masking
from remask.samplers import Frame
from remask.schedules import Linear
from remask.tokenizers import character_tokenizer
from tiny import tiny_network

TOKENIZER = character_tokenizer(["abcd"])


def model(*, causal: bool) -> Model:
    network = tiny_network(vocab_size=TOKENIZER.vocab_size, causal=causal).eval()
    process = Masking(schedule=Linear(), vocab_size=TOKENIZER.vocab_size, mask_id=TOKENIZER.mask_id)
    objective = NextToken(mask_id=TOKENIZER.mask_id)
    return Model(
        network=network, process=None if causal else process, objective=objective, tokenizer=TOKENIZER, length=8
    )


def test_after_an_end_of_text_an_autoregressive_model_begins_anew_as_in_its_training_rows():
    end = TOKENIZER.eos_id
    rows = torch.tensor([[0, 1, end, 2, 3], [3, 3, end, 2, 3], [3, 3, 3, 2, 3]])
    everywhere = torch.ones_like(rows, dtype=torch.bool)
    logits = model(causal=True).logits(rows, torch.zeros(3), positions=everywhere).view(3, 5, -1)
    torch.testing.assert_close(logits[0, 3:], logits[1, 3:])
    torch.testing.assert_close(logits[0, 3], logits[0, 0], msg="the first token of a document has no context")
    assert not torch.allclose(logits[1, 3:], logits[2, 3:])


def test_a_denoiser_takes_a_row_for_one_document():
    rows = torch.tensor([[0, TOKENIZER.eos_id, 2], [1, TOKENIZER.eos_id, 2]])
    logits = model(causal=False).logits(rows, torch.ones(2), positions=torch.ones_like(rows, dtype=torch.bool))
    assert not torch.allclose(logits.view(2, 3, -1)[0, 2], logits.view(2, 3, -1)[1, 2])


def test_a_token_that_no_step_changed_was_not_given_by_the_prompt():
    course = Trajectory(TOKENIZER, 2, [True, False, False])
    for step, ids in enumerate([[0, 1, 2], [0, 1, 3], [0, 1, 3]]):
        course.record(Frame(step=step, t=1.0 - step / 2, z=torch.tensor([ids])))
    assert course.to_json()["revealed"] == [0, 1, 1]
