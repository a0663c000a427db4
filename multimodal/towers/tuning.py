"""How a pretrained tower is tuned: which of its weights move. A recipe names one; a tower without one trains all of its weights.

    tuning: multimodal.towers.LockedNorms
    tuning: {class_path: multimodal.towers.Lora, init_args: {rank: 8}}

A way of your own derives from `Tuning`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from multimodal.errors import InputError, needing

NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)
"""Those of open_clip and timm derive from these."""


class Tuning(ABC):
    """Which weights of a network move."""

    @abstractmethod
    def prepare(self, network: nn.Module, where: str) -> None:
        """Lock what must not move, and add what is learned instead; changes the network. where: what the network is, for messages."""

    def still(self, network: nn.Module) -> Iterator[nn.Module]:
        """The modules that stay in evaluation mode while the network trains; by default none."""
        return iter(())

    def merge(self, network: nn.Module) -> None:  # noqa: B027  (most add nothing)
        """Give the network the tensors that it had before `prepare`, by name and shape, with what was learned."""


class Locked(Tuning):
    """No weight moves: a locked tower (LiT: Zhai et al., 2022). Its batch norms keep their statistics, and it has no dropout."""

    def prepare(self, network: nn.Module, where: str) -> None:
        network.requires_grad_(False)

    def still(self, network: nn.Module) -> Iterator[nn.Module]:
        return network.modules()


class LockedNorms(Tuning):
    """All weights move except those of norms; batch norms keep their statistics."""

    def prepare(self, network: nn.Module, where: str) -> None:
        for norm in self.still(network):
            norm.requires_grad_(False)

    def still(self, network: nn.Module) -> Iterator[nn.Module]:
        return (module for module in network.modules() if isinstance(module, NORMS))


class Lora(Tuning):
    """Low-rank adapters (LoRA: Hu et al., 2022), through peft: W + alpha / rank * B A, of which only A and B move.

    rank, alpha: of each adapter. targets: the layers that have one, by the ends of their names (`[attn, c_fc, c_proj]`); by default all
    attention. An `nn.MultiheadAttention` is one target, with its projections of queries, keys, values and output.

    Everything else is locked, batch norms' statistics included: they are not part of an adapter. An export has the sums, no adapters.
    """

    def __init__(self, rank: int = 8, alpha: int = 16, targets: list[str] | None = None) -> None:
        if min(rank, alpha) < 1:
            raise InputError(f"Lora: rank={rank} must be at least 1, and alpha={alpha} too")
        self.rank, self.alpha, self.targets = rank, alpha, targets

    def prepare(self, network: nn.Module, where: str) -> None:
        targets = self._targets(network, where)
        with needing("train", "LoRA"):
            from peft import LoraConfig, inject_adapter_in_model
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets, lora_dropout=0.0, bias="none")
        config._register_custom_module({nn.MultiheadAttention: _adapted_attention()})
        try:
            inject_adapter_in_model(config, network)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InputError(f"{where}: Lora: targets={self.targets}: {' '.join(str(error).split())}") from None

    def still(self, network: nn.Module) -> Iterator[nn.Module]:
        return network.modules()

    def merge(self, network: nn.Module) -> None:
        with needing("train", "LoRA"):
            from peft.tuners.tuners_utils import BaseTunerLayer
        for name, module in list(network.named_modules()):
            if isinstance(module, BaseTunerLayer) and not name.endswith(".base_layer.out_proj"):  # that one goes with its attention
                parent, _, own = name.rpartition(".")
                setattr(network.get_submodule(parent), own, _merged(module))

    def _targets(self, network: nn.Module, where: str) -> list[str]:
        """The whole names of the layers that get an adapter."""
        layers = {name: module for name, module in network.named_modules() if isinstance(module, _LAYERS) and not _is_read(network, name)}
        if self.targets is None:
            found = [name for name in layers if _is_of_attention(network, name)]
            if not found:
                raise InputError(f"{where}: Lora finds no attention in it. Name layers: targets, of {_listed(layers)}")
            return found
        ends = tuple(f".{target}" for target in self.targets)
        for target, end in zip(self.targets, ends, strict=True):
            if not any(f".{name}".endswith(end) for name in layers):
                raise InputError(f"{where}: Lora: targets: no layer is called {target}. There are: {_listed(layers)}")
        return [name for name in layers if f".{name}".endswith(ends)]


_LAYERS = (nn.MultiheadAttention, nn.Linear, nn.Conv2d)


def _is_read(network: nn.Module, name: str) -> bool:
    """Whether what holds a layer reads its weight without calling it, so that an adapter would have no effect."""
    parent = network.get_submodule(name.rpartition(".")[0])
    return isinstance(parent, nn.MultiheadAttention) or type(parent).__name__ == "AttentionPool2d"


def _is_of_attention(network: nn.Module, name: str) -> bool:
    parent = network.get_submodule(name.rpartition(".")[0])
    return isinstance(network.get_submodule(name), nn.MultiheadAttention) or "Attention" in type(parent).__name__


def _listed(layers: dict[str, Any]) -> str:
    """The last parts of names, each once."""
    return ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers if not name.rpartition(".")[2].isdigit())) or "none"


def _merged(module: Any) -> nn.Module:
    """The layer below an adapter, with the sum of both as its weight."""
    base: Any = module.get_base_layer()
    if isinstance(module, _adapted_attention()):
        sums = module.sums()
        base.out_proj = base.out_proj.get_base_layer()
        with torch.no_grad():
            base.in_proj_weight.copy_(sums[_IN])
            base.out_proj.weight.copy_(sums[_OUT])
    else:
        module.merge()
    merged: nn.Module = base
    return merged


_IN, _OUT = "in_proj_weight", "out_proj.base_layer.weight"


@cache
def _adapted_attention() -> Any:
    """peft's adapter of attention, but the weights below it stay as they are.

    peft's own (0.21) adds the adapter to them before each forward pass and subtracts it afterwards, which changes them by rounding;
    and it adds that of the output projection twice, in training and in what it merges.
    """
    from peft.tuners.lora.layer import MultiheadAttention

    class AdaptedAttention(MultiheadAttention):
        def forward(self, query: Tensor, *args: Any, **kwargs: Any) -> Any:
            return functional_call(self.get_base_layer(), self.sums(), (query, *args), kwargs)

        def sums(self) -> dict[str, Tensor]:
            """The weights with their adapters, by their names in the attention below."""
            base: Any = self.get_base_layer()
            (adapter,) = self.active_adapters
            return {
                _IN: base.in_proj_weight + self.get_delta_weight(adapter),
                _OUT: base.out_proj.base_layer.weight + base.out_proj.get_delta_weight(adapter),
            }

        def _restore_weights(self) -> None:
            """Nothing to restore: peft would make new parameters of them whenever modules or tensors are listed."""

    return AdaptedAttention


def hold_still(modules: Iterator[nn.Module] | Sequence[nn.Module]) -> None:
    """Evaluation mode for these modules themselves, not for what they hold."""
    for module in modules:
        module.training = False
