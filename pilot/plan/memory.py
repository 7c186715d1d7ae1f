"""Memory of one client's training, tensor by tensor.

The estimate counts what PyTorch's autograd keeps for transformers' Llama with frozen weights, per token and layer. C is
the hidden width, K that of keys, F that of the feed-forward part, H the number of heads, S the tokens of a sequence, r
LoRA's rank, s the bytes of an activation:

- two RMS norms compute in float32 and keep their input: 2 * 4 C;
- attention keeps its input, queries, keys, values and output: s (3 C + 2 K); without a fused kernel also the attention
  probabilities, in float32 and, if the activation type differs, in that type too: H S (4 + s);
- the feed-forward part keeps its input, gate, silu(gate), up and their product: s (C + 4 F);
- LoRA computed beside the weights keeps A x of seven matrices: 7 s r. Merged into the weights, it keeps the sum W + B A
  instead, as large as the layer.

With gradient checkpointing a layer keeps only its input, s C, and the above exists for one layer at a time.
"""

from dataclasses import dataclass

from pilot.config.profile import Profile
from pilot.plan.architecture import Architecture
from pilot.plan.phases import FLOAT32, PlannedPhase

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ADAM_STATES = 2
"""Moments per trained parameter."""
LOGITS = 3
"""Tensors of this size: logits, log probabilities, gradients."""
DISTILLED_LOGITS = LOGITS + 6
"""In addition: the teacher's logits; scaled logits and log probabilities of both models; the divergence of each."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Training settings of a client.

    Attributes:
        sequence: S, tokens of the longest sequence, including the image and the text before it.
        answers: labelled tokens of an example, whose logits are computed.
        rank: LoRA's rank r.
        token_space: whether LoRA is computed beside the weights instead of merged into them.
    """

    batch_size: int
    accumulation: int
    sequence: int
    answers: int
    rank: int
    precision: str
    attention: str
    gradient_checkpointing: bool
    token_space: bool
    feature_dtype: str

    @classmethod
    def from_profile(cls, profile: Profile, sequence: int, answers: int) -> "Settings":
        """Make the settings of a profile; limit `sequence` to its `max_length`."""
        return cls(
            batch_size=profile.batch_size,
            accumulation=profile.accumulation,
            sequence=min(sequence, profile.max_length or sequence),
            answers=answers,
            rank=profile.lora.rank,
            precision=profile.precision,
            attention=profile.attention,
            gradient_checkpointing=profile.gradient_checkpointing,
            token_space=profile.lora.space == "token",
            feature_dtype=profile.feature_dtype,
        )

    @property
    def activation_bytes(self) -> int:
        """s: bytes of an activation."""
        return BYTES[self.precision]

    @property
    def tokens(self) -> int:
        """Tokens of a batch padded to its longest sequence."""
        return self.batch_size * self.sequence


@dataclass(frozen=True)
class Memory:
    """Bytes of one client's training in one phase, by part, and at the peak.

    Attributes:
        weights: the frozen model, plus its linear layers again for every offset: W + s D in float32 if W is float32,
            otherwise D in W's type beside it.
        masters: LoRA and connectors in float32, trained or not. In the host's memory: offsets, and the checkpoint's
            values of an LLM that is trained itself.
        optimiser: AdamW's two moments.
        copies: parameters as they were at the start of the phase; rounded copies of trained parameters if activations
            are not float32; tensors that the objective compares with.
        gradients: gradients of trained parameters.
        activations: values that the backward pass of LLM and connector needs.
        working: temporary tensors of the layer that is being computed.
        logits: logits of labelled tokens and their gradients, including a teacher's.
        features: vision features of a batch.
        stepping: temporary tensors of AdamW's step.
        accumulated: whether gradients are kept from one batch to the next.
    """

    weights: int
    masters: int
    optimiser: int
    copies: int
    gradients: int
    activations: int
    working: int
    logits: int
    features: int
    stepping: int
    accumulated: bool

    @property
    def resident(self) -> int:
        """Bytes in use throughout the phase."""
        return self.weights + self.masters + self.optimiser + self.copies + self.features

    @property
    def peak(self) -> int:
        """The maximum over four moments: loss, backward pass of the last layer, that of the first, AdamW's step."""
        kept = self.gradients if self.accumulated else 0
        moments = (
            self.activations + self.logits + kept,
            self.activations + self.working + kept,
            self.working + self.gradients,
            self.gradients + self.stepping,
        )
        return self.resident + max(moments)


def training_memory(architecture: Architecture, settings: Settings, phase: PlannedPhase, *, on_gpu: bool) -> Memory:
    """Estimate the memory that a client needs while it trains a phase.

    Args:
        architecture: the backbone's.
        settings: batch, sequence and how they are computed.
        phase: what is trained.
        on_gpu: whether copies from the start of the phase are in the host's memory instead of the device's.
    """
    size = settings.activation_bytes
    trained, frozen = phase.trained, phase.frozen
    offsets = architecture.linear_parameters if phase.extra_linear_sets else 0
    rounded = size * trained if size < FLOAT32 else 0
    received = trained + (frozen + offsets if phase.distils and on_gpu else 0)
    host = 0 if on_gpu else trained + frozen + offsets
    connector = connector_bytes(architecture, settings, phase)
    elsewhere = phase.trained_language if on_gpu else 0
    return Memory(
        weights=(architecture.parameters + phase.extra_linear_sets * architecture.linear_parameters) * size,
        masters=FLOAT32 * (trained - elsewhere + frozen + (0 if on_gpu else offsets)),
        optimiser=ADAM_STATES * FLOAT32 * trained,
        copies=FLOAT32 * (received + host + phase.extra_copies) + rounded,
        gradients=FLOAT32 * trained,
        activations=_language_bytes(architecture, settings) + connector,
        working=_working_bytes(architecture, settings),
        logits=settings.batch_size * settings.answers * architecture.vocabulary * FLOAT32
        * (DISTILLED_LOGITS if phase.distils else LOGITS),
        features=settings.batch_size * architecture.image_tokens * architecture.feature_width
        * (size + BYTES[settings.feature_dtype]),
        stepping=FLOAT32 * trained,
        accumulated=settings.accumulation > 1,
    )  # fmt: skip


def layer_bytes(architecture: Architecture, settings: Settings) -> int:
    """Count the bytes that one layer of the LLM keeps for its backward pass without gradient checkpointing."""
    hidden, keys, inner = architecture.text_hidden, architecture.kv_width, architecture.text_intermediate
    size, tokens = settings.activation_bytes, settings.tokens
    per_token = 2 * FLOAT32 * hidden + size * (3 * hidden + 2 * keys) + size * (hidden + 4 * inner)
    if settings.attention == "eager":
        rounded = size if size < FLOAT32 else 0
        per_token += architecture.text_heads * settings.sequence * (FLOAT32 + rounded)
    if settings.token_space:
        return tokens * (per_token + 7 * size * settings.rank)
    return tokens * per_token + size * sum(rows * columns for rows, columns in architecture.matrices)


def connector_bytes(architecture: Architecture, settings: Settings, phase: PlannedPhase) -> int:
    """Count the bytes that the connector keeps for its backward pass.

    These are two hidden layers per trained MLP, and the experts' outputs or both outputs of stage 1 in float32.
    """
    tokens, hidden = settings.batch_size * architecture.image_tokens, architecture.text_hidden
    size = settings.activation_bytes
    kept = 2 * size * phase.trained_mlps + size  # and the sum of their outputs
    if phase.num_experts:
        kept += size * phase.num_experts
    elif phase.trained_mlps > 1:
        kept += 2 * FLOAT32 + (2 * FLOAT32 if size < FLOAT32 else 0)
    return tokens * hidden * kept


def _language_bytes(architecture: Architecture, settings: Settings) -> int:
    """Count the bytes that all layers of the LLM keep, and those of its inputs."""
    inputs = settings.tokens * architecture.text_hidden * settings.activation_bytes
    if settings.gradient_checkpointing:
        return (architecture.text_layers + 1) * inputs
    return architecture.text_layers * layer_bytes(architecture, settings) + inputs


def _working_bytes(architecture: Architecture, settings: Settings) -> int:
    """Count the bytes of gradients inside one layer and, with checkpointing, of its recomputed activations."""
    hidden, inner, size = architecture.text_hidden, architecture.text_intermediate, settings.activation_bytes
    gradients = settings.tokens * (size * (2 * inner + 2 * hidden) + 2 * FLOAT32 * hidden)
    if settings.attention == "eager":
        scores = architecture.text_heads * settings.sequence * (2 * size + FLOAT32)
        gradients = max(gradients, settings.tokens * scores)
    if not settings.token_space:
        largest = max(rows * columns for rows, columns in architecture.matrices)
        gradients += largest * (size + (FLOAT32 if size < FLOAT32 else 0))
    again = layer_bytes(architecture, settings) if settings.gradient_checkpointing else 0
    return gradients + again
