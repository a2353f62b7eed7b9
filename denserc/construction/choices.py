"""The named choices of which a dense construction is made."""

from dataclasses import dataclass, fields, replace
from enum import Enum

from ..structures import ConfigurationError, choose


class ValueSource(Enum):
    """Value embeddings that make the dense feature (ablation of the construction, columns 'values')."""

    LAST_BLOCK_RESIDUAL = "last_block_residual"  # x + Proj(v) of the last block: CLIPSelf
    LAST_BLOCK = "last_block"  # Proj(v) of the last block: DeCLIP
    LAST_BLOCK_CLASS_RESIDUAL = "last_block_class_residual"  # class token's x + Proj(v), for every patch: CAT-Seg
    LAST_K_BLOCKS = "last_k_blocks"  # sum of Proj(v) over the last k blocks: DenseRC


class ValueModule(Enum):
    """Module between the values and the output projection (same ablation, 'module')."""

    NONE = "none"
    QK_ATTENTION = "qk_attention"  # the block's own attention: rotary, scaled
    QQ_ATTENTION = "qq_attention"  # queries with queries, neither rotary nor scaled: DeCLIP
    KK_ATTENTION = "kk_attention"  # the same with keys, and with values: DeCLIP's other modes
    VV_ATTENTION = "vv_attention"
    CSA_ATTENTION = "csa_attention"  # the sum of the q-q and the k-k attention (rows add up to 2)
    QKV_ATTENTION = "qkv_attention"  # softmax of the mean of the q-q, k-k and v-v products
    HSG = "hsg"  # Head Selection Gating: no mixing over space

    @property
    def self_correlated(self) -> str:
        """Those of q, k and v that an attention correlates with themselves; "" for the modules that do not."""
        return _SELF_CORRELATED.get(self.value, "")

    @property
    def mixes(self) -> bool:
        """True if the values of other patches enter a patch's feature."""
        return self is ValueModule.QK_ATTENTION or bool(self.self_correlated)


_SELF_CORRELATED = {
    "qq_attention": "q",
    "kk_attention": "k",
    "vv_attention": "v",
    "csa_attention": "qk",
    "qkv_attention": "qkv",
}


class Projection(Enum):
    """Output projection of a block's values."""

    OWN = "own"  # each block's own, as in the unrolled sum of the derivation
    LAST = "last"  # the last block's for all: one product instead of k


class GatePosition(Enum):
    """Position of the gate in towers with a norm between heads and projection (EVA-02)."""

    BEFORE_NORM = "before_norm"
    AFTER_NORM = "after_norm"


@dataclass(frozen=True)
class Construction:
    """A dense construction, whole. The paper's DenseRC is the default.

    Args:
        values: Value embeddings used.
        num_blocks: k, for LAST_K_BLOCKS only.
        module: Module over them.
        shared_gate: HSG only: one W_H for all blocks (paper) or one per block (Table 12).
        projection: Output projection of the values.
        gate_position: Position of the gates; only for HSG.
        final_mlp: True to run the last block's MLP (Table 13, "final MLP in student").
    """

    values: ValueSource = ValueSource.LAST_K_BLOCKS
    num_blocks: int = 3
    module: ValueModule = ValueModule.HSG
    shared_gate: bool = True
    projection: Projection = Projection.OWN
    gate_position: GatePosition = GatePosition.BEFORE_NORM
    final_mlp: bool = False

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, Enum):
                object.__setattr__(self, field.name, choose(type(field.default), value, field.name))
            elif type(value) is not type(field.default):
                raise ConfigurationError(f"{field.name} must be of type {type(field.default).__name__}; got {value!r}.")
        if self.num_blocks < 1:
            raise ConfigurationError(f"num_blocks must be at least 1; got {self.num_blocks}.")

    @property
    def blocks_used(self) -> int:
        """Number of the tower's last blocks whose values are used."""
        return self.num_blocks if self.values is ValueSource.LAST_K_BLOCKS else 1

    @property
    def num_gates(self) -> int:
        """Number of gate projections W_H."""
        if self.module is not ValueModule.HSG:
            return 0
        return 1 if self.shared_gate else self.blocks_used

    @classmethod
    def named(cls, name: str, **overrides) -> "Construction":
        """One of `CONSTRUCTIONS`, with single fields replaced."""
        if name not in CONSTRUCTIONS:
            raise ConfigurationError(f"Unknown construction {name!r}. Known: {', '.join(CONSTRUCTIONS)}.")
        return replace(CONSTRUCTIONS[name], **overrides)

    def to_dict(self) -> dict[str, str | int | bool]:
        """Plain values, for a checkpoint's metadata."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, str | int | bool]) -> "Construction":
        """The inverse of `to_dict`; an unknown key or value is a ConfigurationError."""
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            known = [field.name for field in fields(cls)]
            raise ConfigurationError(f"Unknown construction keys {sorted(map(str, unknown))}. Known: {known}.")
        return cls(**values)


CONSTRUCTIONS = {
    "denserc": Construction(),
    "denserc_per_layer": Construction(shared_gate=False),
    "denserc_none": Construction(module=ValueModule.NONE),
    "denserc_qk": Construction(module=ValueModule.QK_ATTENTION),
    "denserc_qq": Construction(module=ValueModule.QQ_ATTENTION),
    "clipself": Construction(
        values=ValueSource.LAST_BLOCK_RESIDUAL, num_blocks=1, module=ValueModule.NONE, final_mlp=True
    ),
    "catseg": Construction(
        values=ValueSource.LAST_BLOCK_CLASS_RESIDUAL, num_blocks=1, module=ValueModule.NONE, final_mlp=True
    ),
    "declip": Construction(values=ValueSource.LAST_BLOCK, num_blocks=1, module=ValueModule.QQ_ATTENTION),
    "declip_kk": Construction(values=ValueSource.LAST_BLOCK, num_blocks=1, module=ValueModule.KK_ATTENTION),
    "declip_vv": Construction(values=ValueSource.LAST_BLOCK, num_blocks=1, module=ValueModule.VV_ATTENTION),
    "declip_csa": Construction(values=ValueSource.LAST_BLOCK, num_blocks=1, module=ValueModule.CSA_ATTENTION),
    "declip_all": Construction(values=ValueSource.LAST_BLOCK, num_blocks=1, module=ValueModule.QKV_ATTENTION),
    "last_block_values": Construction(values=ValueSource.LAST_BLOCK, num_blocks=1, module=ValueModule.NONE),
}
