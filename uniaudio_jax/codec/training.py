"""The programs of codec training: the state, one update, the start of the codebooks.

Three phases in one run: unquantised warm-up; straight-through training with codebooks that follow running means, after
a k-means start on the residuals of training batches; and, where the config asks for it, adversarial training with
discriminators (`discriminators.py`) whose losses a balancer weighs against the spectral one. A training that starts
from another codec has no warm-up; it may leave encoder and codebooks as they are and move the decoder alone.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from uniaudio_jax.codec import rvq
from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.balancer import balanced_gradient
from uniaudio_jax.codec.codec import open_codec
from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.codec.discriminators import Discriminators, Scored, adversarial_loss, discriminator_loss, feature_loss
from uniaudio_jax.codec.losses import spectral_losses
from uniaudio_jax.codec.module import build_module, with_params
from uniaudio_jax.optim import guarded_update, make_optimizer
from uniaudio_jax.sharding import axes_sharding, check_rows, divides, replicated, rows_sharding

KMEANS_VECTORS_PER_ENTRY = 40
BALANCED = ("spectral", "adversarial", "feature")

State = dict[str, Any]


def check_trainable(config: CodecTrainConfig) -> None:
    """Raises ValueError for a layout that this trainer has no losses for."""
    if config.codec.segment is not None or config.codec.layout.channels != 1:
        raise ValueError(
            f"codec {config.codec.name}: got a layout with segments or several channels, wanted mono "
            "without segments; this trainer has no losses for others"
        )


def initial_state(config: CodecTrainConfig) -> State:
    """Parameters and codebooks of `start_from`, or random ones and zeros; fresh moments and discriminators."""
    check_trainable(config)
    quantizer = config.codec.quantizer
    if config.start_from is None:
        params = nnx.to_pure_dict(nnx.state(build_module(config.codec, nnx.Rngs(config.seed)), nnx.Param))
        books = jnp.zeros((quantizer.codebooks, quantizer.entries, quantizer.width))
        counts = jnp.zeros((quantizer.codebooks, quantizer.entries))
    else:
        params, books = _start_from(config)
        frames = config.batch * config.segment_seconds * config.codec.clock.frame_rate_hz
        counts = jnp.full(books.shape[:2], frames / quantizer.entries)
    statistics = {"codebooks": books, "sums": books * counts[..., None], "counts": counts}
    moments = make_optimizer(config.optim, config.steps).init(_trained(config, params))
    state = {"params": params, "moments": moments, "statistics": statistics, "skipped": jnp.zeros((), jnp.int32)}
    if config.adversarial is not None:
        discriminators = nnx.to_pure_dict(nnx.state(_discriminators(config, nnx.Rngs(config.seed + 1)), nnx.Param))
        state["discriminators"] = discriminators
        optimizer = make_optimizer(config.adversarial.optim, config.steps)
        state["discriminator_moments"] = optimizer.init(discriminators)
        state["norms"] = {name: jnp.zeros(()) for name in BALANCED}
    # Weak types would compile the step a second time.
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)


def _trained(config: CodecTrainConfig, params: dict) -> dict:
    """The part of the parameters that the training moves."""
    return {"decoder": params["decoder"]} if config.decoder_only else params


def _start_from(config: CodecTrainConfig) -> tuple[dict, Array]:
    """Parameters and codebooks of another codec of the same sizes. Raises ValueError when they differ."""
    start = open_codec(config.start_from or "")
    for present, wanted in (
        (start.config.layout, config.codec.layout),
        (start.config.quantizer, config.codec.quantizer),
    ):
        if present != wanted:
            raise ValueError(f"start_from={config.start_from!r}: got a codec of {present}, wanted {wanted}")
    params = {key: value for key, value in start.params.items() if key != "quantizer"}
    return jax.tree.map(jnp.asarray, (params, start.params["quantizer"]["codebooks"]))


def _discriminators(config: CodecTrainConfig, rngs: nnx.Rngs) -> Discriminators:
    assert config.adversarial is not None
    return Discriminators(config.codec.sample_rate_hz, config.adversarial.channels, rngs=rngs)


@functools.cache
def _discriminators_skeleton(config: CodecTrainConfig) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: _discriminators(config, nnx.Rngs(0))))


def _discriminate(config: CodecTrainConfig, params: dict, wav: Float[Array, "B S"]) -> list[Scored]:
    graph, abstract = _discriminators_skeleton(config)
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(wav)


def state_shardings(state: State, mesh: Mesh) -> State:
    """The sharding of every array: the output channels of a matrix are cut where the mesh divides them.

    Vectors, the codebooks and matrices of other sizes are whole on every device.
    """

    def sharding(leaf: Any) -> Any:
        if leaf.ndim < 2 or not divides(mesh, "channels", leaf.shape[-1]):
            return replicated(mesh)
        return axes_sharding(mesh, ("none",) * (leaf.ndim - 1) + ("channels",), leaf.shape)

    whole = jax.tree.map(lambda _: replicated(mesh), state["statistics"])
    return {**jax.tree.map(sharding, state), "statistics": whole}


def place_wav(wav: Float[np.ndarray, "B S"], mesh: Mesh) -> jax.Array:
    """The batch, which every process has whole, with its rows spread over the mesh."""
    check_rows(mesh, len(wav))
    return jax.make_array_from_callback(wav.shape, rows_sharding(mesh), lambda part: wav[part])


def random_levels(config: CodecTrainConfig, key: PRNGKeyArray, rows: int) -> Int[Array, " B"]:
    """Levels each row trains with: `main_codebooks` for `main_share` of them, else 1 to all."""
    stored = config.codec.quantizer.codebooks
    main, other = jax.random.split(key)
    anything = jax.random.randint(other, (rows,), 1, stored + 1)
    is_main = jax.random.bernoulli(main, config.main_share, (rows,))
    return jnp.where(is_main, min(config.main_codebooks, stored), anything)


def _spectral(config: CodecTrainConfig, wanted: Array, got: Array) -> tuple[Array, dict[str, Array]]:
    mel, magnitude = spectral_losses(wanted, got, config.codec.sample_rate_hz)
    return config.mel_weight * mel + config.magnitude_weight * magnitude, {"mel": mel, "magnitude": magnitude}


@functools.partial(jax.jit, static_argnames=("config", "mesh", "quantised", "adversarial"), donate_argnums=0)
def train_step(
    state: State,
    wav: Float[Array, "B S"],
    key: PRNGKeyArray,
    replace: Bool[Array, ""],
    *,
    config: CodecTrainConfig,
    mesh: Mesh,
    quantised: bool,
    adversarial: bool = False,
) -> tuple[State, dict[str, Array]]:
    """One update. `quantised`: the codebooks stand between encoder and decoder; `adversarial`: discriminators join."""
    level_key, replace_key = jax.random.split(key)
    statistics = rvq.Statistics(**state["statistics"])

    trained = _trained(config, state["params"])

    def forward(params: dict) -> tuple[tuple[Array, Array], rvq.Quantised | None]:
        module = with_params(config.codec, {**state["params"], **params})
        vectors = module.encode(wav)
        if not quantised:
            return (module.decode(vectors), jnp.zeros(())), None
        result = rvq.quantise(vectors, statistics.codebooks, random_levels(config, level_key, len(wav)))
        return (module.decode(result.vectors), result.commitment), result

    (decoded, commitment), pull, result = jax.vjp(forward, trained, has_aux=True)
    (spectral, metrics), gradient = jax.value_and_grad(lambda x: _spectral(config, wav, x), has_aux=True)(decoded)
    new = dict(state)
    if adversarial:
        gradient, values = _adversarial_step(state, new, config, wav, decoded)
        metrics |= values
    gradients = pull((gradient, jnp.asarray(config.commitment_weight)))[0]
    optimizer, loss = make_optimizer(config.optim, config.steps), spectral + config.commitment_weight * commitment
    moved, new["moments"], norm, finite = guarded_update(optimizer, gradients, state["moments"], trained, loss)
    new["params"] = {**state["params"], **moved}
    skipped = jnp.where(finite, 0, 1)
    metrics = {"loss": loss, **metrics, "gradient_norm": norm, "skipped": skipped}
    if result is not None:
        metrics["commitment"] = commitment
    if result is not None and not config.decoder_only:
        new["statistics"], metrics["dead_entries"] = _updated_codebooks(
            config, statistics, result, replace, replace_key
        )
    # A step that is not finite leaves everything as it was: codebooks and discriminators too.
    new = jax.tree.map(lambda fresh, old: jnp.where(finite, fresh, old), new, dict(state))
    new["skipped"] = state["skipped"] + skipped
    return jax.lax.with_sharding_constraint(new, state_shardings(new, mesh)), metrics


def _updated_codebooks(
    config: CodecTrainConfig,
    statistics: rvq.Statistics,
    result: rvq.Quantised,
    replace: Bool[Array, ""],
    key: PRNGKeyArray,
) -> tuple[dict[str, Array], Int[Array, ""]]:
    """The codebooks after one batch, where `replace` is true with the dead entries replaced, and how many are dead."""
    statistics = rvq.ema_update(statistics, result, config.codebook_decay)
    replaced, dead = rvq.replace_dead_codes(statistics, result.residuals, config.dead_code_share, key)
    statistics = jax.tree.map(lambda fresh, old: jnp.where(replace, fresh, old), replaced, statistics)
    return statistics._asdict(), jnp.sum(dead)


def _adversarial_step(
    state: State, new: State, config: CodecTrainConfig, wav: Array, got: Array
) -> tuple[Float[Array, "B S"], dict[str, Array]]:
    """The balanced gradient at the codec's output; moves the discriminators and the norms in `new`."""
    settings = config.adversarial
    assert settings is not None
    real = _discriminate(config, state["discriminators"], wav)

    losses = {
        "spectral": lambda x: _spectral(config, wav, x)[0],
        "adversarial": lambda x: adversarial_loss(_discriminate(config, state["discriminators"], x)),
        "feature": lambda x: feature_loss(real, _discriminate(config, state["discriminators"], x)),
    }
    weights = {
        "spectral": settings.spectral_weight,
        "adversarial": settings.adversarial_weight,
        "feature": settings.feature_weight,
    }
    gradient, values, new["norms"] = balanced_gradient(losses, weights, got, state["norms"], settings.norm_decay)
    fixed = jax.lax.stop_gradient(got)
    values["discriminators"], slopes = jax.value_and_grad(
        lambda params: discriminator_loss(_discriminate(config, params, wav), _discriminate(config, params, fixed))
    )(state["discriminators"])
    optimizer = make_optimizer(settings.optim, config.steps)
    new["discriminators"], new["discriminator_moments"], *_ = guarded_update(
        optimizer, slopes, state["discriminator_moments"], state["discriminators"], values["discriminators"]
    )
    return gradient, {name: values[name] for name in ("adversarial", "feature", "discriminators")}


@functools.partial(jax.jit, static_argnames=("config", "mesh"))
def _vectors(params: dict, wav: Array, *, config: CodecTrainConfig, mesh: Mesh) -> Float[Array, "N width"]:
    vectors = with_params(config.codec, params).encode(wav)
    return jax.lax.with_sharding_constraint(vectors.reshape(-1, vectors.shape[-1]), replicated(mesh))


def start_codebooks(state: State, config: CodecTrainConfig, audio: Audio, mesh: Mesh) -> State:
    """The state with every codebook started by k-means on encoded training batches."""
    quantizer, parts, count = config.codec.quantizer, [], 0
    while count < quantizer.entries * KMEANS_VECTORS_PER_ENTRY:
        wav = place_wav(audio.batch(config, 1, len(parts)), mesh)
        parts.append(np.asarray(_vectors(state["params"], wav, config=config, mesh=mesh)))
        count += len(parts[-1])
    share = len(parts[0]) / count
    key = jax.random.key(config.seed)
    start = rvq.kmeans_start(jnp.concatenate(parts), quantizer.codebooks, quantizer.entries, key, share)
    return {**state, "statistics": jax.device_put(start._asdict(), replicated(mesh))}


def codebook_report(state: State) -> dict[str, float]:
    """Per level: perplexity of the codes (at most the number of entries), and the share of entries in use.

    An entry is in use when its running count is above a hundredth of an even share.
    """
    report = {}
    for level, counts in enumerate(np.asarray(jax.device_get(state["statistics"]["counts"]), np.float64)):
        share = counts / max(counts.sum(), 1e-9)
        report[f"perplexity/level_{level + 1}"] = float(np.exp(-np.sum(share * np.log(share + 1e-12))))
        report[f"in_use/level_{level + 1}"] = float(np.mean(share > 0.01 / len(share)))
    return report
