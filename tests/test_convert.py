"""Laws of weight conversion, and of the PyTorch model that the conversion is for."""

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from uniaudio_jax.config import MODERN, PAPER, ModelConfig, StackConfig
from uniaudio_jax.convert import (
    config_from_json,
    config_to_json,
    from_torch_names,
    to_torch_names,
    torch_shapes,
    tree_shapes,
)
from uniaudio_jax.pytorch.modeling_uniaudio import Sampling, UniAudio, UniAudioConfig, choose, keep
from uniaudio_jax.vocab import PUBLIC_RANGES, Vocabulary

FORMAT = Path(__file__).parent / "golden" / "uniaudio_v1_format.json"
CONFIG = ModelConfig(
    vocabulary=101,
    ranges=(),
    context_frames=29,
    codebooks=3,
    text_width=7,
    global_stack=StackConfig(layers=3, width=30, heads=5),
    local_stack=StackConfig(layers=2, width=30, heads=5),
)

MODERN_CONFIG = replace(CONFIG, vocabulary=Vocabulary(3, 3).size, ranges=PUBLIC_RANGES, entries=3, layout=MODERN)


def torch_model(config: ModelConfig) -> UniAudio:
    return UniAudio(UniAudioConfig.from_json(config_to_json(config)))


@st.composite
def configs(draw) -> ModelConfig:
    codebooks, heads, part = (draw(st.sampled_from(primes)) for primes in ((1, 2, 3), (1, 2, 5), (1, 2, 3)))
    layers, width = st.integers(1, 3), codebooks * heads * part
    appended, padding = draw(st.sampled_from(({}, {"text": 7}, {"language": 5, "sv_bool": 2}))), draw(st.integers(0, 3))
    entries = draw(st.sampled_from((2, 3)))
    ids = Vocabulary(codebooks, entries, appended)
    return ModelConfig(
        vocabulary=ids.size + padding,
        entries=entries,
        appended=appended,
        context_frames=draw(st.sampled_from((7, 11))),
        codebooks=codebooks,
        text_width=draw(st.sampled_from((1, 13))),
        layout=draw(st.sampled_from((PAPER, MODERN))) if codebooks > 1 else PAPER,
        global_stack=StackConfig(layers=draw(layers), width=width, heads=heads),
        local_stack=StackConfig(layers=draw(layers), width=width, heads=heads),
    )


def random_state(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in torch_shapes(config).items()}


def random_tree(config: ModelConfig, seed: int = 0) -> dict:
    """Arrays of any 32 bits, NaN and infinity included."""
    rng, tree = np.random.default_rng(seed), {}
    for path, shape in tree_shapes(config).items():
        *parents, leaf = path.split(".")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    return tree


def bits(tree: dict) -> dict:
    return {
        name: bits(value) if isinstance(value, dict) else (value.dtype, value.shape, value.tobytes())
        for name, value in tree.items()
    }


def test_names_and_shapes_are_the_published_ones():
    lm = json.loads(FORMAT.read_text())["lm"]
    example = lm["example_config"]
    sizes = {
        "vocab": example["vocab"],
        "context_frames": example["context_patches"],
        "width": example["width"],
        "heads": example["heads"],
        "global_layers": example["global_layers"],
        "local_layers": 2,
        "codebooks": example["tokens_per_patch"],
    }
    state = {name: np.zeros(shape, np.float32) for name, shape in lm["state_dict"].items()}
    config = config_from_json(sizes, state)
    assert config.text_width == 768
    assert list(torch_shapes(config).items()) == [(name, tuple(shape)) for name, shape in lm["state_dict"].items()]
    assert set(from_torch_names(state, config)) == {"global", "local"}


@pytest.mark.parametrize("config", [CONFIG, MODERN_CONFIG], ids=["paper", "modern"])
def test_the_torch_model_has_the_names_and_shapes(config):
    state = torch_model(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == torch_shapes(config)


def test_kernels_are_turned_and_layers_are_stacked():
    state = random_state(CONFIG)
    tree = from_torch_names(state, CONFIG)
    up = tree["global"]["blocks"]["mlp"]["up"]
    assert up["kernel"].shape == (3, 30, 120) and up["bias"].shape == (3, 120)
    np.testing.assert_array_equal(up["kernel"][2], state["g_layers.2.mlp.0.weight"].T)
    np.testing.assert_array_equal(
        tree["local"]["blocks"]["attention_norm"]["scale"][1], state["l_layers.1.attn_ln.weight"]
    )
    np.testing.assert_array_equal(tree["local"]["link"]["kernel"], state["g2l_linear.weight"].T)
    np.testing.assert_array_equal(tree["global"]["embedding"], state["g_emb.weight"])
    assert set(tree["global"]["blocks"]["attention"]["key"]) == {"kernel"} == set(tree["local"]["head"])


@settings(deadline=None, max_examples=30)
@given(config=configs(), seed=st.integers(0, 2**16))
def test_round_trips_are_bit_equal(config, seed):
    tree = random_tree(config, seed)
    state = to_torch_names(tree, config)
    assert {name: array.shape for name, array in state.items()} == torch_shapes(config)
    assert bits(from_torch_names(state, config)) == bits(tree)
    assert bits(to_torch_names(from_torch_names(state, config), config)) == bits(state)
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_a_converted_tree_shares_no_memory_with_the_checkpoint():
    state = random_state(CONFIG)
    tree = from_torch_names(state, CONFIG)
    before = bits(tree)
    for array in state.values():
        array[...] = 0
    assert bits(tree) == before


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened(kind):
    halves = {name: array.astype(kind) for name, array in random_state(CONFIG).items()}
    wide = {name: array.astype(np.float32) for name, array in halves.items()}
    assert bits(from_torch_names(halves, CONFIG)) == bits(from_torch_names(wide, CONFIG))


def test_one_error_lists_all_tensors_that_do_not_fit():
    state = random_state(CONFIG)
    del state["g_layers.1.attn.key.weight"]
    state["extra"] = np.zeros((2, 3), np.float32)
    state["lm_head.weight"] = state["lm_head.weight"].T
    state["g_ln.bias"] = state["g_ln.bias"].astype(np.float64)
    with pytest.raises(ValueError, match="4 arrays do not fit") as error:
        from_torch_names(state, CONFIG)
    for line in (
        "g_layers.1.attn.key.weight: missing, wanted float32 (30, 30)",
        "extra: surplus, got float32 (2, 3)",
        "lm_head.weight: wanted float32 (101, 30), got float32 (30, 101)",
        "g_ln.bias: wanted float32 (30,), got float64 (30,)",
    ):
        assert line in str(error.value)


def test_one_error_lists_all_arrays_of_a_tree_that_do_not_fit():
    tree = random_tree(CONFIG)
    del tree["global"]["text"]["bias"]
    tree["local"]["head"]["bias"] = np.zeros(101, np.float32)
    tree["local"]["positions"] = tree["local"]["positions"][:2]
    with pytest.raises(ValueError, match="3 arrays do not fit") as error:
        to_torch_names(tree, CONFIG)
    for line in (
        "global.text.bias: missing, wanted float32 (30,)",
        "local.head.bias: surplus, got float32 (101,)",
        "local.positions: wanted float32 (3, 30), got float32 (2, 30)",
    ):
        assert line in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebooks": None}, "codebooks: missing"),
        ({"layers": 3}, "layers: surplus, got 3"),
        ({"width": 30.0}, "width: got 30.0, wanted a positive integer"),
        ({"vocab": True}, "vocab: got True, wanted a positive integer"),
        ({"text_width": None}, "text_width: missing"),
        ({"appended": {"text": 0}}, "text: got 0, wanted a positive integer"),
        ({"appended": 7}, "appended: got 7, wanted sizes"),
        ({"heads": 7}, "a width that is a multiple of heads"),
    ],
)
def test_a_json_that_does_not_fit_is_refused(change, message):
    values = {name: value for name, value in (config_to_json(CONFIG) | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        config_from_json(values)


def test_a_layout_is_in_the_json_where_it_is_not_the_papers():
    assert "layout" not in config_to_json(CONFIG)
    assert config_to_json(MODERN_CONFIG)["layout"]["positions"] == "rotary"
    assert config_from_json(json.loads(json.dumps(config_to_json(MODERN_CONFIG)))) == MODERN_CONFIG
    with pytest.raises(ValueError, match="model JSON, layout: got the fields colour, wanted a LayoutConfig with"):
        config_from_json(config_to_json(CONFIG) | {"layout": {"colour": 3}})


def test_the_text_width_comes_from_the_weights():
    values = config_to_json(CONFIG)
    del values["text_width"]
    assert config_from_json(values, random_state(CONFIG)) == CONFIG
    with pytest.raises(ValueError, match="text_t5.weight: got no such tensor"):
        config_from_json(values, {})


def test_stacks_with_other_heads_have_no_json():
    stack = StackConfig(layers=2, width=30, heads=3)
    config = ModelConfig(
        vocabulary=101,
        ranges=(),
        context_frames=29,
        codebooks=3,
        text_width=7,
        global_stack=CONFIG.global_stack,
        local_stack=stack,
    )
    with pytest.raises(ValueError, match="5 global and 3 local heads"):
        config_to_json(config)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors are so small here that a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> UniAudio:
    """Weights of a size that makes every part matter, in float64, where two orders of the same sums agree."""
    torch.manual_seed(0)
    model = torch_model(CONFIG).double()
    for weight in model.parameters():
        weight.data += (0.4 if weight.ndim == 2 else 0.1) * torch.randn_like(weight)
    return model


def random_tokens(rows: int, frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 101, (rows, frames, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def random_text(rows: int, vectors: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vectors, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_logits_know_the_tokens_before_them_and_no_others(model):
    tokens, frame, level = random_tokens(2, 7), 4, 1
    changed = tokens.clone()
    changed[:, frame, level] = (tokens[:, frame, level] + 1) % 101
    differs = (model(tokens) - model(changed)).abs().amax(dim=(0, 3)) > 1e-10
    wanted = torch.zeros(7, 3, dtype=torch.bool)
    wanted[frame, level + 1 :] = True
    wanted[frame + 1 :] = True
    assert torch.equal(differs, wanted)


@torch.no_grad()
def test_packed_examples_have_the_logits_of_each_alone(model):
    lengths, slots = (5, 11, 3), torch.full((1, 23), -1)
    examples = [random_tokens(1, length, seed=length) for length in lengths]
    text, alone = random_text(1, 5), []
    starts = np.cumsum((0, *lengths))
    for number, (example, start) in enumerate(zip(examples, starts[:-1], strict=True)):
        own = torch.full((1, example.shape[1]), -1)
        own[0, 1], own[0, -1] = number, number + 2
        slots[0, start : start + example.shape[1]] = own
        alone.append(model(example, text_vectors=text, text_slots=own)[0])
    tokens = torch.cat([*examples, torch.zeros(1, 4, 3, dtype=torch.int32)], dim=1)
    segments = torch.tensor([[1] * 5 + [2] * 11 + [3] * 3 + [0] * 4])
    positions = torch.tensor([[*range(5), *range(11), *range(3), *[0] * 4]])
    packed = model(tokens, positions, segments, text, slots)[0]
    assert packed.isfinite().all()
    assert_close(packed[:19], torch.cat(alone))
    assert_close(model(tokens, None, segments, text, slots)[0, :19], torch.cat(alone))


@torch.no_grad()
def test_a_text_vector_takes_the_place_of_the_frame_vector(model):
    tokens, text = random_tokens(1, 7), random_text(1, 2)
    slots = torch.tensor([[-1, -1, 1, -1, -1, -1, -1]])
    positions = torch.arange(7)[None]
    with_text = model.global_inputs(tokens, positions, text, slots)
    without = model.global_inputs(tokens, positions, None, None)
    mapped = model.continuous_mappings["text_t5"](text[0, 1])
    assert_close(with_text[0, 3], mapped + model.g_pos.weight[3])
    assert torch.equal(with_text[0, [0, 1, 2, 4, 5, 6]], without[0, [0, 1, 2, 4, 5, 6]])
    retyped = tokens.clone()
    retyped[0, 2] = 1
    after = model(tokens, text_vectors=text, text_slots=slots)[0, 3:]
    assert_close(model(retyped, text_vectors=text, text_slots=slots)[0, 3:], after)


def test_the_loss_is_the_mean_over_tokens_of_counted_frames(model):
    tokens, counted = random_tokens(2, 13), torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.4
    each = F.cross_entropy(model(tokens).flatten(0, 2), tokens.flatten().long(), reduction="none")
    wanted = each.unflatten(0, (2, 13, 3))[counted].mean()
    for all_frames in (False, True):
        assert_close(model.loss(tokens, counted, local_on_all_frames=all_frames), wanted)
    assert model.loss(tokens, torch.zeros_like(counted)) == 0


def test_a_local_stack_over_counted_frames_alone_has_the_same_gradients(model):
    tokens, counted = random_tokens(2, 13), torch.arange(26).reshape(2, 13) % 5 < 2
    losses = [model.loss(tokens, counted, local_on_all_frames=all_frames) for all_frames in (False, True)]
    weights = [weight for name, weight in model.named_parameters() if not name.startswith("continuous")]
    for few, every in zip(*(torch.autograd.grad(loss, weights) for loss in losses), strict=True):
        assert_close(few, every)


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_cached_generation_is_the_argmax_of_the_full_forward(model, masked):
    prefix, text, slots = random_tokens(2, 7), random_text(2, 3), torch.full((2, 7), -1)
    slots[:, 2], slots[:, 6] = 0, 2
    allowed = torch.arange(101) % 3 == torch.arange(3).unsqueeze(1) if masked else None
    made = model.generate(prefix, 11, allowed, text, slots)
    assert made.shape == (2, 11, 3) and made.dtype == prefix.dtype
    logits = model(torch.cat([prefix, made], dim=1), None, None, text, F.pad(slots, (0, 11), value=-1))[:, 7:]
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    assert torch.equal(made, logits.argmax(-1).int())
    assert len(made.unique()) > 5


def test_generation_stays_in_the_context(model):
    assert model.generate(random_tokens(1, 19), 10).shape == (1, 10, 3)
    with pytest.raises(ValueError, match="prefix of 19 and 11 frames, wanted at most context_frames=29"):
        model.generate(random_tokens(1, 19), 11)


CHANCES = torch.tensor([[0.5, 0.05, 0.25, 0.15, 0.05], [0.1, 0.1, 0.1, 0.1, 0.6]]).double()


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=0), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
        (Sampling(top_k=2, top_p=0.99), [[0, 2], [4, 0]]),
        (Sampling(top_k=0, top_p=0.74), [[0, 2], [4, 0, 1]]),
        (Sampling(top_k=0, top_p=0.01), [[0], [4]]),
        (Sampling(top_k=7), [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]),
    ],
)
def test_the_most_likely_tokens_are_kept_by_number_and_by_share(sampling, kept):
    logits = CHANCES.log() + 3
    places = [row.isfinite().nonzero()[:, 0].tolist() for row in keep(logits, sampling)]
    assert [len(row) for row in places] == [len(row) for row in kept]
    assert places[0] == sorted(kept[0]) and 4 in places[1]


def test_tokens_are_drawn_with_their_chances_and_the_end_with_its_own():
    rows, generator = 50_021, torch.Generator().manual_seed(0)
    logits = CHANCES[:1].log().expand(rows, -1)
    allowed = logits.masked_fill(torch.arange(5) == 3, -torch.inf)

    def shares(end: int | None, **options: float) -> np.ndarray:
        drawn = choose(allowed, logits, end, Sampling(generator=generator, **options))  # pyright: ignore[reportArgumentType]
        return np.bincount(drawn.numpy(), minlength=5) / rows

    codes = np.array([0.5, 0.05, 0.25, 0, 0.05])
    np.testing.assert_allclose(shares(None, top_k=0), codes / 0.85, atol=0.01)
    np.testing.assert_allclose(shares(3, top_k=0), codes + [0, 0, 0, 0.15, 0], atol=0.01)
    few = np.array([0.85 * 0.5 / 0.75, 0, 0.85 * 0.25 / 0.75, 0, 0])
    np.testing.assert_allclose(shares(3, top_k=2), few / 0.85, atol=0.01)  # the end is less likely than the second code
    cold = np.array([0.5, 0.05, 0.25, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(shares(3, top_k=0, temperature=0.5), cold / cold.sum(), atol=0.01)
    assert shares(3, temperature=0.0)[0] == 1 and shares(0, temperature=0.0)[0] == 1


@torch.no_grad()
def test_a_row_stays_at_its_end_and_generation_stops_when_all_rows_have_ended(model):
    prefix = random_tokens(3, 7)
    free = model.generate(prefix, 13)
    end = int(free[0, 4, 0])
    allowed = torch.arange(101).expand(3, -1) != end
    made = model.generate(prefix, 13, allowed, end=end)
    first = [int((row[:, 0] == end).nonzero()[0]) if (row[:, 0] == end).any() else 13 for row in made]
    for row, length in zip(made, first, strict=True):
        assert (row[length:] == end).all() and not (row[:length] == end).any()
    assert first[0] <= 4 and made.shape[1] == min(13, max(first) + 1)
