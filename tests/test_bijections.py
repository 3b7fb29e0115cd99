"""Rows, spans, files of noise, paths on a sphere and resampling, on a tiny model and in closed form."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import kstest

from cached import MASKING, TOKENIZER, make_model
from remask.bijections.coding import Coder, Unpadded, draw_noise
from remask.bijections.exceptions import differing, in_float32, noise_of_uniform_predictor, uniformity
from remask.bijections.interpolation import interpolate, spherical
from remask.bijections.noise_file import Origin, check_origin, read_noise, write_noise
from remask.bijections.resampling import FRESH, NOISE_HELD, TEXT_HELD, grouped_share, kept, resample
from remask.bijections.rows import rows_of_texts
from remask.bijections.spans import random_share, tokens_of_span
from remask.errors import UserError
from remask.networks import BIDIRECTIONAL
from remask.orders import FixedOrder, SureFirst, left_to_right, random_permutation, top_gap
from remask.samplers.bijection import Bijection
from remask.tokenizers import ByteTokenizer, train_bpe

ORIGIN = Origin(
    weights="w" * 32, tokenizer="t", reveal="random", steps=4, block_length=None, seed=1, run="run", computed="cpu"
)
TEXTS = ["abcabcab", "cab", "bbbbbb"]


def coder_of(order=None, *, steps=3, block_length=None) -> Coder:
    model = make_model(BIDIRECTIONAL, MASKING)
    order = FixedOrder(random_permutation(3)) if order is None else order
    return Coder(model=model, bijection=Bijection(model=model, order=order, steps=steps, block_length=block_length))


def rows_of(texts):
    return rows_of_texts(texts, TOKENIZER, length=32)


@pytest.fixture(scope="module")
def coder() -> Coder:
    return coder_of()


# ── which tokens ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), train_bpe(["wörter über wörter"] * 9, vocab_size=270)])
@pytest.mark.parametrize("span", ["über", "ö", "w", "r w"])
def test_a_span_takes_the_tokens_that_hold_a_byte_of_it_and_no_others(tokenizer, span):
    text = "xöy über r w z" if span in ("über", "ö", "r w") else "äää w"
    found = tokenizer.encode(text)
    chosen = tokens_of_span(text, span, byte_lengths=found.byte_lengths.tolist())
    start = len(text[: text.index(span)].encode())
    wanted, place = set(range(start, start + len(span.encode()))), 0
    for size, taken in zip(found.byte_lengths.tolist(), chosen, strict=True):
        assert taken == bool(wanted & set(range(place, place + size)))
        place += size
    assert any(chosen)


@pytest.mark.parametrize(
    ("span", "said"), [("", "empty"), ("dog", "not in the text"), ("aa", "2 times"), ("a", "3 times")]
)
def test_a_span_that_is_not_there_once_is_refused(span, said):
    with pytest.raises(UserError, match=said):
        tokens_of_span("aaa", span, byte_lengths=[1, 1, 1])


def test_a_random_share_takes_so_many_tokens_of_each_row_and_never_given_ones():
    free = torch.ones(50, 20, dtype=torch.bool)
    free[:, :3] = False
    free[25:, 10:] = False
    for share, wanted in ((0.3, (5, 2)), (0.001, (1, 1)), (1.0, (17, 7))):
        chosen = random_share(free, share, seed=1)
        assert chosen[:25].sum(-1).unique().tolist() == [wanted[0]]
        assert chosen[25:].sum(-1).unique().tolist() == [wanted[1]]
        assert not (chosen & ~free).any()
    assert len(random_share(free, 0.3, seed=1).unique(dim=0)) > 25, "other places in other rows"
    assert not random_share(free, 0.3, seed=1).equal(random_share(free, 0.3, seed=2))


@pytest.mark.parametrize(
    ("texts", "said"),
    [(["ab", ""], "text 2 is empty"), (["a" * 33], "the text has 33 tokens"), (["ab", "axb"], "text 2: the character")],
)
def test_a_text_that_makes_no_row_is_refused_and_named(texts, said):
    with pytest.raises(UserError, match=said):
        rows_of(texts)


# ── there and back ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "order", [FixedOrder(left_to_right), FixedOrder(random_permutation(1)), SureFirst(top_gap)], ids=["l", "r", "m"]
)
@pytest.mark.parametrize("block_length", [None, 3])
def test_texts_of_several_lengths_return_from_their_noise_and_the_noise_from_its_texts(order, block_length):
    coder, rows = coder_of(order, block_length=block_length), rows_of(TEXTS)
    coded = coder.encode(rows, within=draw_noise(rows, 1, "within"))
    decoded = coder.decode(rows, coded.noise)
    assert decoded.ids.equal(rows.ids)
    assert rows.texts(decoded.ids, TOKENIZER) == TEXTS
    torch.testing.assert_close(decoded.within[rows.free], coded.within[rows.free], atol=1e-9, rtol=0)
    fresh = draw_noise(rows, 1, "other")
    drawn = coder.decode(rows, fresh)
    again = coder.encode(rows.with_ids(drawn.ids), within=drawn.within)
    torch.testing.assert_close(again.noise[rows.free], fresh[rows.free], atol=1e-12, rtol=0)


def test_padding_changes_no_probability(coder):
    together, longest = coder.nats(rows_of(TEXTS)), len(TEXTS[0])
    for row, text in enumerate(TEXTS):
        alone = torch.nn.functional.pad(coder.nats(rows_of([text])), (0, longest - len(text)))
        # the fixed order ranks the places of a row alike at every length only where it goes from the left
        if len(text) == longest:
            torch.testing.assert_close(together[row], alone[0], atol=1e-10, rtol=0)
    plain = coder_of(FixedOrder(left_to_right))
    together = plain.nats(rows_of(TEXTS))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(together[row, : len(text)], plain.nats(rows_of([text]))[0], atol=1e-10, rtol=0)


def test_padding_that_the_network_sees_would_change_probabilities():
    coder, rows = coder_of(FixedOrder(left_to_right)), rows_of(TEXTS)
    blind = replace(rows, valid=torch.ones_like(rows.valid))
    assert (coder.nats(rows) - coder.nats(blind)).abs().max() > 1e-4


def test_one_round_has_the_probability_of_independent_tokens(coder):
    """Against softmax of the network's logits for a row of masks, without the code under test."""
    one, rows = coder_of(steps=1), rows_of(["abcab"])
    masks = torch.full((1, 5), MASKING.mask_id)
    everywhere = torch.ones_like(masks, dtype=torch.bool)
    time = torch.ones(1, dtype=torch.float64)
    logits = one.model.network(masks, time, segments=torch.ones_like(masks), positions=everywhere)
    logits[..., MASKING.mask_id] = -torch.inf
    expected = -logits.detach().log_softmax(-1).gather(-1, rows.ids.view(5, 1)).view(1, 5)
    torch.testing.assert_close(one.nats(rows), expected, atol=1e-10, rtol=0)
    assert (coder.nats(rows) - expected).abs().max() > 1e-3, "three rounds are another sampler"


def test_noise_of_drawn_texts_is_uniform_and_that_of_other_texts_is_not(coder):
    many = rows_of(["a" * 12] * 64)
    drawn = coder.decode(many, draw_noise(many, 1, "draw"))
    texts = many.with_ids(drawn.ids)
    assert uniformity(coder.encode(texts, within=draw_noise(texts, 2, "within")).noise.flatten()).p > 0.01
    assert uniformity(coder.encode(many, within=draw_noise(many, 2, "within")).noise.flatten()).p < 1e-6


def test_noise_behind_a_uniform_predictor_is_uniform_for_uniform_tokens_alone():
    ids = torch.randint(4, (4000,), generator=torch.Generator().manual_seed(1))
    ids = ids + (ids >= 2).long()  # the mask is token 2
    within = torch.rand(4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert uniformity(noise_of_uniform_predictor(ids, within, vocab_size=5, mask_id=2)).p > 0.01
    assert uniformity(noise_of_uniform_predictor(ids.clamp_max(3), within, vocab_size=5, mask_id=2)).p < 1e-6


def test_noise_in_32_bits_stays_in_its_tokens_interval_where_plain_rounding_leaves_it(coder):
    rows = rows_of(["abcabcabcabc"] * 20)
    edge = torch.where(torch.arange(12) % 2 == 0, 0.0, 1 - 2.0**-53).double().expand(20, 12)
    coded = coder.encode(rows, within=edge)
    assert differing(coder, rows, coded.noise).sum() == 0
    assert differing(coder, rows, in_float32(coded)).sum() == 0
    assert in_float32(coded).equal(in_float32(coded).float().double())
    assert differing(coder, rows, coded.noise.float().double()).sum() > 0


# ── drawn anew in part ─────────────────────────────────────────────────────────────────────────────────────────


def test_held_tokens_keep_their_noise_and_a_text_held_keeps_its_tokens(coder):
    rows = rows_of(["abcabcabca", "bca"] * 8)
    fresh = random_share(rows.free, 0.4, seed=1)
    ways = resample(coder, rows, fresh, seed=1)
    before = coder.encode(rows, within=draw_noise(rows, 1, "within")).noise
    held = rows.free & ~fresh
    after = rows.with_ids(ways[NOISE_HELD].ids)
    decoded = coder.decode(rows, ways[NOISE_HELD].noise)
    again = coder.encode(after, within=decoded.within).noise
    torch.testing.assert_close(again[held], before[held], atol=1e-12, rtol=0)
    assert (again[fresh] - before[fresh]).abs().max() > 0.1
    assert kept(rows, ways[TEXT_HELD].ids, held).equal(held.sum(-1))
    assert ways[TEXT_HELD].ids[~rows.free].equal(rows.ids[~rows.free])
    shares = {name: int(kept(rows, way.ids, held).sum()) / int(held.sum()) for name, way in ways.items()}
    assert shares[FRESH] < shares[NOISE_HELD] < 1, shares
    for way in ways.values():
        torch.testing.assert_close(way.nats, coder.nats(rows.with_ids(way.ids)), atol=1e-9, rtol=0)


def test_what_comes_before_a_span_stays_as_it_is_when_tokens_are_revealed_from_the_left():
    coder, rows = coder_of(FixedOrder(left_to_right), steps=10), rows_of(["abcabcabca"] * 16)
    fresh = torch.zeros_like(rows.free)
    fresh[:, 5] = True
    ids = resample(coder, rows, fresh, seed=1)[NOISE_HELD].ids
    assert ids[:, :5].equal(rows.ids[:, :5])
    assert not ids[:, 5:].equal(rows.ids[:, 5:])


def test_a_share_over_draws_of_one_text_has_the_error_of_the_texts():
    part, whole = torch.tensor([1, 1, 3, 3]), torch.tensor([4, 4, 4, 4])
    assert grouped_share(part, whole, size=2) == pytest.approx((0.5, 0.25))
    assert grouped_share(part, whole, size=1)[1] < 0.25
    assert grouped_share(part, whole * 0, size=1) == (None, None)


# ── between two texts ──────────────────────────────────────────────────────────────────────────────────────────


def uniform(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_noise_on_a_sphere_between_two_noises_is_noise_and_on_a_line_it_is_none():
    first, last = uniform(1, 100, 64), uniform(2, 100, 64)
    for share in (0.25, 0.5, 0.8):
        on_sphere = torch.cat([spherical(a, b, [share]) for a, b in zip(first, last, strict=True)]).flatten()
        assert kstest(on_sphere.numpy(), "uniform").pvalue > 0.01
        on_line = ((1 - share) * first + share * last).flatten()
        assert kstest(on_line.numpy(), "uniform").pvalue < 1e-6


def test_a_path_on_a_sphere_begins_and_ends_at_the_noises_to_the_last_bit_and_stays_inside():
    first, last = uniform(1, 8), uniform(2, 8)
    first[0], last[1] = 0.0, 1 - 2.0**-53
    path = spherical(first, last, [0.0, 0.5, 1.0])
    assert path[0].equal(first)
    assert path[2].equal(last)
    assert bool(((path >= 0) & (path < 1)).all())


@pytest.mark.parametrize("length", [1, 6])
def test_a_path_from_a_noise_to_itself_stays_there_and_one_to_its_opposite_has_no_gap(length):
    first = uniform(1, length).clamp(0.01, 0.99)
    torch.testing.assert_close(spherical(first, first, [0.3])[0], first, atol=1e-9, rtol=0)
    middle = spherical(first, 1 - first, [0.5])
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5), atol=1e-9, rtol=0)


def test_a_path_of_texts_has_both_texts_at_its_ends(coder):
    ends = rows_of(["abcabcabca", "ccbaabbccc"])
    path = interpolate(coder, ends, count=4, seed=1)
    assert path.ids[[0, -1]].equal(ends.ids)
    assert path.shares == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert not path.ids[1].equal(ends.ids[0])
    for ids, nats in zip(path.ids, path.nats, strict=True):
        torch.testing.assert_close(coder.nats(ends.taken([0]).with_ids(ids[None]))[0], nats, atol=1e-9, rtol=0)
    assert path.strangers.shape == (32, 10)


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def noise_file(coder, tmp_path):
    rows = rows_of(TEXTS)
    path = tmp_path / "noise.safetensors"
    write_noise(path, origin=ORIGIN, rows=rows, coded=coder.encode(rows, within=draw_noise(rows, 1, "within")))
    return path


def test_a_file_gives_back_what_was_written_and_is_all_that_is_left(noise_file, coder):
    found, rows = read_noise(noise_file), rows_of(TEXTS)
    assert found.origin == ORIGIN
    assert all(getattr(found.rows, name).equal(getattr(rows, name)) for name in ("ids", "valid", "free"))
    assert coder.decode(found.rows, found.noise).ids.equal(rows.ids)
    assert [path.name for path in noise_file.parent.iterdir()] == [noise_file.name]


@pytest.mark.parametrize("name", ["noise", "ids", "within", "free"])
def test_a_file_whose_numbers_were_changed_is_refused(noise_file, name):
    header, tensors = _opened(noise_file)
    tensors[name][0, 0] = 0 if name == "free" else tensors[name][0, 0] + (1 if name == "ids" else 1e-9)
    save_file(tensors, noise_file, metadata={"remask_noise": json.dumps(header)})
    with pytest.raises(UserError, match="digest"):
        read_noise(noise_file)


def test_a_file_whose_facts_were_changed_is_refused(noise_file):
    header, tensors = _opened(noise_file)
    save_file(tensors, noise_file, metadata={"remask_noise": json.dumps({**header, "steps": 5})})
    with pytest.raises(UserError, match="digest"):
        read_noise(noise_file)


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"{}"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "noise.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no file of noise"):
        read_noise(path)


def test_tensors_of_another_shape_or_type_are_refused(noise_file):
    header, tensors = _opened(noise_file)
    for wrong in (
        {**tensors, "noise": tensors["noise"].float()},
        {**tensors, "within": tensors["within"][:, :2].contiguous()},
        {name: tensors[name] for name in ("ids", "noise")},
    ):
        save_file(wrong, noise_file, metadata={"remask_noise": json.dumps(header)})
        with pytest.raises(UserError, match="no file of noise"):
            read_noise(noise_file)


def test_a_missing_file_and_one_of_another_origin_are_refused(noise_file, tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_noise(tmp_path / "other.safetensors")
    found = read_noise(noise_file)
    check_origin(found, noise_file, own=ORIGIN)
    check_origin(found, noise_file, own=replace(ORIGIN, run="renamed", computed="elsewhere"))
    for change in ({"weights": "v" * 32}, {"reveal": "spread"}, {"steps": 5}, {"seed": 2}, {"block_length": 4}):
        with pytest.raises(UserError, match=r"another model|was encoded with"):
            check_origin(found, noise_file, own=replace(ORIGIN, **change))


def _opened(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["remask_noise"]), load_file(path)


def test_what_a_sampler_sees_is_the_model_itself_where_nothing_is_padding(coder):
    z, t = torch.full((2, 5), MASKING.mask_id), torch.ones(2).double()
    here = torch.ones_like(z, dtype=torch.bool)
    seen = Unpadded(model=coder.model, valid=here)
    assert seen.logits(z, t, positions=here).equal(coder.model.logits(z, t, positions=here))
