"""FedRot-LoRA. "FedRot-LoRA: Mitigating Rotational Misalignment in Federated LoRA", 2026, arXiv 2602.23638.

B A = (B R) (R^T A) for every rotation R, so that clients' factors may differ by a rotation although their products
agree; averaged factors then cancel. Before a client sends its factors, it turns them towards the received ones, by the
solution of an orthogonal Procrustes problem: even rounds ||R^T A - A_g||, odd rounds ||B R - B_g||, over rotations R:

    M = A A_g^T (even) or B^T B_g (odd) = U S V^T,   R = U diag(1, ..., 1, det(U V^T)) V^T,
    R' = the rotation nearest to (1 - strength) I + strength R;   sent: R'^T A, B R'.

Server as in FedAvg. In round 1, in which all clients start from B = 0 and the same A, nothing is turned.

Deviations: the authors' code turns by the whole R and lets it mirror, unless it is told a strength of at most 1; here
factors are never mirrored, and the default is in the middle of the range that notes on the paper call best. Where R or
R' is not defined (M = 0; half-way to a turn by 180 degrees) nothing is turned. The connector, which the paper's models
lack, is averaged. Weights are numbers of examples. AdamW, like every method here.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pilot.methods.averaging import PLAIN_GROUPS, Averaging
from pilot.methods.base import ClientInfo, Phase, PhaseResult, SplitResult, State, select
from pilot.methods.lora_products import NEGLIGIBLE, layers_of, pair_of

PLAIN, TO_A, TO_B = "train", "train_towards_a", "train_towards_b"


@dataclass(frozen=True, kw_only=True)
class FedRotLora(Averaging):
    """Averaging of factors that clients have turned towards the global ones.

    Attributes:
        strength: how far factors are turned, in 0..1: 0 is FedAvg, 1 the whole way.
    """

    name: ClassVar[str] = "fedrot_lora"

    strength: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: expected a number in 0..1, got {self.strength}")

    def phases(self, round_number: int) -> tuple[Phase, ...]:
        """Return one phase with all steps of the round; its name says which global factor is turned towards."""
        name = PLAIN if round_number == 1 else TO_B if round_number % 2 else TO_A
        return (Phase(name=name, trainable=PLAIN_GROUPS, shared=PLAIN_GROUPS),)

    def split_result(self, phase: Phase, client: ClientInfo, result: PhaseResult) -> SplitResult:
        """Send the connector and the turned factors; a client that received no factors sends its own as they are."""
        shared = select(result.end, phase.shared)
        if phase.name != PLAIN and select(result.payload, {"text_adapter"}):
            shared |= aligned(shared, result.payload, self.strength, to_a=phase.name == TO_A)
        return SplitResult(shared, {})


def aligned(state: State, towards: State, strength: float, *, to_a: bool) -> State:
    """Turn every layer's pair towards the pair of `towards`; the products B A stay the same up to rounding."""
    result: State = {}
    for layer in layers_of(state):
        a_RI, b_OR = pair_of(state, layer)
        global_a_RI, global_b_OR = pair_of(towards, layer)
        one_RX, other_RX = (a_RI, global_a_RI) if to_a else (b_OR.T, global_b_OR.T)
        turn_RR = rotation(one_RX @ other_RX.T, float(one_RX.norm() * other_RX.norm()))
        turn_RR = rotation((1 - strength) * torch.eye(len(turn_RR), dtype=turn_RR.dtype) + strength * turn_RR)
        names = (f"text_adapter.{layer}.lora_A", f"text_adapter.{layer}.lora_B")
        turned = (turn_RR.T @ a_RI, b_OR @ turn_RR)
        result |= {name: value.to(state[name].dtype) for name, value in zip(names, turned, strict=True)}
    return result


def rotation(matrix_RR: Tensor, size: float = 1.0) -> Tensor:
    """Return the rotation R (R, R) with the largest trace of R^T M: the nearest one to M; the identity for M = 0.

    M is 0 if its largest singular value is negligible beside `size`.
    """
    u_RR, s_R, v_RR = torch.linalg.svd(matrix_RR)
    if s_R[0] <= NEGLIGIBLE * size:
        return torch.eye(len(matrix_RR), dtype=matrix_RR.dtype)
    signs_R = torch.ones(len(matrix_RR), dtype=matrix_RR.dtype)
    signs_R[-1] = torch.linalg.det(u_RR @ v_RR).sign()
    return (u_RR * signs_R) @ v_RR
