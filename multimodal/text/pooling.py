"""How an encoder's vectors of tokens become the vector of a text: pooling and prompt, as sentence-transformers records them.

    usage = usage_of(Path("encoders/bge"))                    # Usage(pooling="cls", prompt="")
    vectors = pool(states, mask, ids, usage.pooling)          # (b, d)

Tensors come in as arguments, so this module needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from multimodal.boxes import box_file
from multimodal.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["mean", "cls", "last", "eot"]
"""mean: over the tokens. cls: the first token. last: the last one. eot: the first end-of-text token, as CLIP's text encoder has it."""
POOLINGS: tuple[str, ...] = get_args(Pooling)

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
_POOLING_FOLDER = "1_Pooling"  # where sentence-transformers writes it; modules.json may name another
SETTINGS = (MODULES, PROMPTS, "*_Pooling/config.json")
"""The files that `usage_of` reads, as patterns for a download."""
_NAMES: Mapping[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # sentence-transformers' -> ours
_FLAGS = {  # sentence-transformers before 5.4 -> the names since then
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MODULES_READ = frozenset(("Transformer", "Pooling", "Normalize"))


@dataclass(frozen=True, slots=True)
class Usage:
    """How an encoder is used. pooling: how tokens become one vector. prompt: put in front of every text, as "query: "; "" for none."""

    pooling: Pooling = "mean"
    prompt: str = ""

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InputError(f"unknown pooling {self.pooling!r}. Use one of: {', '.join(POOLINGS)}")
        if not isinstance(self.prompt, str):
            raise InputError(f"the prompt is {self.prompt!r}; it must be a text to put in front of every text")


def usage_of(folder: Path, pooling: Pooling | None = None, prompt: str | None = None, prompt_name: str | None = None) -> Usage:
    """How sentence-transformers would use the encoder of a folder; mean pooling (eot for CLIP's text encoder) and no prompt if the folder
    does not say.

    pooling, prompt: instead of what the folder says; with a pooling, no module after the transformer is read.
    prompt_name: one of the prompts that the folder names, instead of its default.
    InputError if the folder asks for what is not computed here, or has no such prompt.
    """
    if prompt is not None and prompt_name is not None:
        raise InputError(f"a prompt {prompt!r} and the name of a prompt {prompt_name!r}: give only one of them")
    file = None if pooling is not None else _pooling_file(folder)
    config = {} if file is None else _read(file, dict)
    usage = Usage(
        pooling or (_mode(file, config) if file is not None else _default(folder)),
        _prompt(folder, prompt_name) if prompt is None else prompt,
    )
    if usage.prompt and config.get("include_prompt", True) is not True:
        raise InputError(
            f'{file}: leaves the prompt out when it pools (include_prompt), which is not supported. Use no prompt (""), or set the pooling '
            "yourself, which includes the prompt"
        )
    return usage


def pool(states: Tensor, mask: Tensor, ids: Tensor, pooling: Pooling, eot: int | None = None) -> Tensor:
    """The vector of each text, from those of its tokens; the padding may be on either side.

    states (b, t, d) float, an encoder's last layer. mask (b, t), 1 for tokens and 0 for padding.
    ids (b, t) int, the tokens, and eot, the id of the end-of-text token: only for the pooling eot, that of CLIP (Radford et al., 2021).
    Returns (b, d); zeros for a text without a token. InputError if a text has no end-of-text token.
    """
    weights = mask[:, :, None].to(states.dtype)
    if pooling == "mean":
        return (states * weights).sum(1) / weights.sum(1).clamp_min(1)
    kept = mask.long()
    if pooling == "cls":
        at = kept.argmax(1)  # of equal maxima, the first
    elif pooling == "last":
        at = kept.shape[1] - 1 - kept.flip(1).argmax(1)
    else:
        assert eot is not None  # see `eot_of`
        ends = ids.eq(eot).long() * kept
        if bool((ends.sum(1) < kept.amax(1)).any()):
            raise InputError(
                f"pooling eot: the tokenizer adds no end-of-text token (id {eot}) to a text. Use the pooling last, cls or mean"
            )
        at = ends.argmax(1)
    # not take_along_dim: torch's exporter to ONNX would fix the number of texts
    return (states * weights).gather(1, at[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]


def eot_of(config: Any, pooling: Pooling) -> int | None:
    """The id of a model's end-of-text token, for `pool`: None if this pooling needs none. config: the model's, of transformers."""
    if pooling != "eot":
        return None
    if config.model_type == "clip_text_model" and config.eos_token_id == 2:
        return int(config.vocab_size) - 1  # folders of before transformers 4.31 say 2, and mean the token with the highest number
    if not isinstance(config.eos_token_id, int):
        raise InputError(
            f"pooling eot: the encoder's config.json has the eos_token_id {config.eos_token_id}, but one end-of-text token is needed. "
            "Use the pooling last, cls or mean"
        )
    return config.eos_token_id


def _pooling_file(folder: Path) -> Path | None:
    """The settings of the folder's pooling; None if it has none. InputError if another module comes after the transformer."""
    name = _POOLING_FOLDER
    if (folder / MODULES).is_file():
        modules = _read(folder / MODULES, list)
        if not all(isinstance(module, dict) and isinstance(module.get("type"), str) for module in modules):
            raise InputError(f"{folder / MODULES}: must list modules, each with a type, as sentence-transformers writes it")
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        if others := [kind for kind in kinds if kind not in _MODULES_READ]:
            raise InputError(
                f"{folder / MODULES}: has the module {others[0]}, which is not computed here; only {', '.join(sorted(_MODULES_READ))} are. "
                f"To use the transformer alone, give the pooling: {', '.join(POOLINGS)}"
            )
        if "Pooling" not in kinds:
            return None
        name = modules[kinds.index("Pooling")].get("path")
    file = box_file(folder, name, may_link=True) / "config.json"
    if file.is_file():
        return file
    if (folder / MODULES).is_file():
        raise InputError(f"{folder / MODULES}: names {name}/config.json, which is missing. Restore it, or give the pooling")
    return None


def _default(folder: Path) -> Pooling:
    config = _read(folder / "config.json", dict) if (folder / "config.json").is_file() else {}
    return "eot" if config.get("model_type") == "clip_text_model" else "mean"


def _mode(file: Path, config: Mapping[str, Any]) -> Pooling:
    given = config.get("pooling_mode", [name for flag, name in _FLAGS.items() if config.get(flag)] or "mean")
    modes = given if isinstance(given, list) else [given]
    if len(modes) != 1 or modes[0] not in _NAMES:
        raise InputError(
            f"{file}: pools by {' and '.join(map(str, modes))}, which is not supported; one of {', '.join(_NAMES)} is. "
            f"Use another encoder, or give the pooling: {', '.join(POOLINGS)}"
        )
    return _NAMES[modes[0]]


def _prompt(folder: Path, name: str | None) -> str:
    config = _read(folder / PROMPTS, dict) if (folder / PROMPTS).is_file() else {}
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise InputError(f"{folder / PROMPTS}: prompts must map names to texts")
    name = config.get("default_prompt_name") if name is None else name
    if name is not None and name not in prompts:
        named = f"it names {', '.join(prompts)}" if prompts else "it names no prompts"
        raise InputError(f"{folder / PROMPTS}: has no prompt {name!r}; {named}. Give the text of the prompt itself")
    return "" if name is None else prompts[name]


def _read(file: Path, kind: type) -> Any:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: is not valid JSON: {error}. Restore it, or give the pooling and the prompt") from None
    if not isinstance(settings, kind):
        raise InputError(f"{file}: must hold a {kind.__name__} of JSON, as sentence-transformers writes it")
    return settings
