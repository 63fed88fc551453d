"""The settings of an SPP adapter, and SPP's place among PEFT's types.

Knows nothing about layers; tuner.py registers them with this.
"""

import math
import re
from dataclasses import dataclass, field

from peft import PeftConfig, PeftType
from peft.tuners.tuners_utils import check_target_module_exists

from ..arguments import number

_member = PeftType.__members__.get("SPP")
if _member is None:  # an enum cannot be extended by its own means; plain strings break PEFT's status
    _member = str.__new__(PeftType, "SPP")
    _member._name_, _member._value_, _member.made_by = "SPP", "SPP", "spp_lite"
    PeftType._member_map_["SPP"] = PeftType._value2member_map_["SPP"] = _member
    PeftType._member_names_.append("SPP")
    type.__setattr__(PeftType, "SPP", _member)
elif getattr(_member, "made_by", None) != "spp_lite":  # ours is there when this file is imported again
    raise ImportError("this version of peft has an SPP of its own: use a spp_lite made for it")


FORMS = ("spp", "direct")


@dataclass
class SppConfig(PeftConfig):
    """Settings of an SPP adapter.

    form: "spp", W ⊙ (1 + s · R(α)β) (Lu et al. 2024), or "direct", W ⊙ (1 + R(α))(1 + β): our variant, not the paper's, of
    the same size, whose α and β both have a gradient from the first step; it has no s. r: row blocks of α (any r ≥ 1).
    scaling: s. dropout: on the input of the SPP branch; above 0 training takes the
    residual form, about 5/3 of the matrix work. token_fraction: below 1, dα and dβ are estimated from that share of the
    tokens (unbiased; of several active adapters the largest counts). target_modules: None for every linear of the
    decoder blocks, else names, a regex or "all-linear"; layers_to_transform: of these only the ones in the blocks of
    these numbers: the first number in a name, or the one after a layers_pattern. rank_pattern, scaling_pattern: name
    pattern → r, s. mask_…: filled in; compared when an adapter is loaded.

    >>> from peft import get_peft_model
    >>> from spp_lite import SppConfig, load, prune
    >>> model, _ = load("tiny")
    >>> _ = prune(model, sparsity="50%", method="magnitude", progress=False)
    >>> adapted = get_peft_model(model, SppConfig(r=4, target_modules=["q_proj"]))
    >>> layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
    >>> type(layer).__name__, tuple(layer.spp_alpha["default"].shape) == (4, model.config.hidden_size)
    ('SppLinear', True)
    >>> type(adapted.base_model).__name__
    'SppModel'
    """

    r: int = 16
    scaling: float = 2.0
    dropout: float = 0.0
    form: str = "spp"
    token_fraction: float = 1.0
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    scaling_pattern: dict[str, float] = field(default_factory=dict)
    init_weights: bool = True
    mask_fingerprint: str | None = None
    mask_type: str | None = None
    mask_samples: dict[str, str] = field(default_factory=dict)
    mask_values: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.SPP
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        blocks = self.layers_to_transform
        if isinstance(blocks, int | tuple | range | set):
            blocks = self.layers_to_transform = [blocks] if isinstance(blocks, int) else list(blocks)
        for name, r in {"r": self.r, **self.rank_pattern}.items():
            if type(r) is not int or r < 1:
                raise ValueError(f"SppConfig: r={r!r} for {name!r}: give a whole number of row blocks, at least 1")
        for name, scaling in {"scaling": self.scaling, **self.scaling_pattern}.items():
            if type(scaling) not in (int, float) or not 0 < abs(scaling) < math.inf:
                raise ValueError(f"SppConfig: scaling={scaling!r} for {name!r}: give a number other than 0")
        if self.form not in FORMS:
            raise ValueError(f"SppConfig: form={self.form!r} is none of {', '.join(FORMS)}")
        if self.form == "direct" and (self.scaling != SppConfig.scaling or self.scaling_pattern):
            raise ValueError("SppConfig: form='direct' has no scaling: leave scaling and scaling_pattern out")
        number(dropout=self.dropout, token_fraction=self.token_fraction)
        if self.dropout >= 1 or not 0 < self.token_fraction <= 1:
            raise ValueError(
                f"SppConfig: dropout={self.dropout} must be in [0, 1), token_fraction={self.token_fraction} in (0, 1]"
            )
        if self.layers_pattern if blocks is None else not blocks or any(type(block) is not int for block in blocks):
            raise ValueError(f"SppConfig: layers_to_transform={blocks}: give the blocks' numbers, or no layers_pattern")
        for text in (self.target_modules, self.exclude_modules, *self.rank_pattern, *self.scaling_pattern):
            try:
                re.compile(text if isinstance(text, str) else "")
            except re.error as error:
                raise ValueError(f"SppConfig: {text!r} is no regular expression: {error}") from None

    def wants(self, name: str):
        """Does this adapter go on the module of this name? Raises ValueError where another one trains it whole."""
        found = check_target_module_exists(self, name)
        if found and self.layers_to_transform is not None:  # PEFT asks for it with some kinds of target_modules alone
            found = self.block(name) in self.layers_to_transform
        if found and plain(name) != name:
            raise ValueError(f"{plain(name)} is in another adapter's modules_to_save: exclude it from this one")
        return found

    def block(self, name: str) -> int | None:
        """The number of the block that a module stands in."""
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        found = re.match(rf"(?:.*?\.)?(?:{'|'.join(patterns or [r'[^.]+'])})\.(\d+)(?:\.|$)", name)
        return int(found[1]) if found else None


def plain(name: str) -> str:
    """A module's name without what PEFT's wrappers put into it."""
    return re.sub(r"\.(original_module|modules_to_save\.[^.]+)(?=\.|$)", "", name).removeprefix("base_model.model.")
