"""How the weights are updated: an optimiser, the learning rate of each parameter, and its schedule.

    model:
      optimiser: {lr: 1.0e-3, warmup_steps: 20}                      # AdamWCosine, the default, needs no class path
      optimiser: {class_path: multimodal.training.SGDSteps, init_args: {lr: 1.0e-3, rates: {image_tower.trunk: 0.1}}}

An optimiser of your own is a class that derives from `Optimiser`, has `make`, and is named by its path.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from multimodal.errors import InputError, missing_extra
from multimodal.towers.layers import layer_numbers


class Optimiser(ABC):
    """Makes a torch optimiser over a module's trainable parameters, in groups with their own rate and weight decay.

    rates: factors on the rate, by prefix of parameter names (`{image_tower.trunk: 0.1}`); the longest prefix counts, the default is 1.
    layer_decay: for timm's networks and the towers of CLIP models: the rate of each layer is this factor times that of the layer above it
        (timm's `param_groups_layer_decay`, after BEiT, Bao et al., 2022). None: all have the same.

    Weight decay applies only to matrices and kernels: biases, norms and scales (anything of fewer than two dimensions) have none.
    """

    def __init__(self, rates: Mapping[str, float] | None = None, layer_decay: float | None = None) -> None:
        self.rates = dict(rates or {})
        self.layer_decay = layer_decay
        for name, times in self.rates.items():
            if not times > 0:
                raise InputError(f"optimiser.rates: {name}: {times} must be above 0. To freeze a trunk: frozen: true")
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise InputError(f"optimiser.layer_decay={layer_decay} must be above 0 and at most 1, or null")

    @abstractmethod
    def make(self, groups: list[dict[str, Any]]) -> Optimizer:
        """A torch optimiser over these groups, at the peak rate of a parameter with factor 1.

        groups: `params`, and `weight_decay` 0 for those without weight decay.
        """

    def schedule(self, optimizer: Optimizer, num_steps: Callable[[], float]) -> dict[str, Any] | None:
        """How the rates change, as a Lightning `lr_scheduler`; None: they stay.

        num_steps: optimiser steps of the whole run; infinite until the loaders exist, which is before the second step.
        """
        return None

    def optimizer(self, module: nn.Module) -> Optimizer:
        """The torch optimiser of a module's trainable parameters; InputError if there are none, or a rate matches none."""
        groups = self.groups(module)
        if not groups:
            raise InputError("no parameter of the towers, the target side or the objective is trainable: all are frozen")
        made = self.make([group for _, group in groups])
        for (factor, _), group in zip(groups, made.param_groups, strict=True):
            group["lr"] *= factor
        return made

    def groups(self, module: nn.Module) -> list[tuple[float, dict[str, Any]]]:
        """Trainable parameters by factor of the rate: each in up to two groups, with and without weight decay."""
        factors = self._factors(module)
        trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        groups: list[tuple[float, dict[str, Any]]] = []
        for factor in dict.fromkeys(factors[name] for name, _ in trained):
            own = [parameter for name, parameter in trained if factors[name] == factor]
            decayed, others = [one for one in own if one.ndim >= 2], [one for one in own if one.ndim < 2]
            groups += [(factor, {"params": decayed})] if decayed else []
            groups += [(factor, {"params": others, "weight_decay": 0.0})] if others else []
        return groups

    def _factors(self, module: nn.Module) -> dict[str, float]:
        """Name of a trainable parameter -> factor on the rate."""
        factors = {name: 1.0 for name, parameter in module.named_parameters() if parameter.requires_grad}
        for prefix in sorted(self.rates, key=len):
            found = [name for name in factors if f"{name}.".startswith(f"{prefix}.")]
            if not found:
                raise InputError(f"optimiser.rates: no trainable parameter is called {prefix}. There are: {', '.join(_parts(factors))}")
            factors |= dict.fromkeys(found, self.rates[prefix])
        if self.layer_decay is not None:
            scales = _layer_scales(module, self.layer_decay)
            if not scales:
                raise InputError(
                    f"optimiser.layer_decay={self.layer_decay}: no trunk of timm and no tower of a CLIP model is trainable here, so "
                    "there are no layers. Leave it out, or do not freeze the trunk"
                )
            factors |= {name: factors[name] * scale for name, scale in scales.items()}
        return factors


class AdamWCosine(Optimiser):
    """AdamW whose rate rises linearly and then falls along a half cosine to zero at the run's last step.

    lr: the peak rate. weight_decay: only of matrices and kernels. warmup_steps: optimiser steps until the peak rate.
    betas: AdamW's. rates: factors on the rate, by prefix of parameter names. layer_decay: the rate of each layer of a trunk is this factor
    times that of the layer above it.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 20,
        betas: tuple[float, float] = (0.9, 0.999),
        rates: dict[str, float] | None = None,
        layer_decay: float | None = None,
    ) -> None:
        super().__init__(rates, layer_decay)
        _check(lr, weight_decay=weight_decay, warmup_steps=warmup_steps)
        _check_betas(betas)
        self.lr, self.weight_decay, self.warmup_steps, self.betas = lr, weight_decay, warmup_steps, betas

    def make(self, groups: list[dict[str, Any]]) -> Optimizer:
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)

    def schedule(self, optimizer: Optimizer, num_steps: Callable[[], float]) -> dict[str, Any] | None:
        shares = LambdaLR(optimizer, lambda step: warmup_cosine(step, num_steps(), self.warmup_steps))
        return {"scheduler": shares, "interval": "step"}


class SGDSteps(Optimiser):
    """Stochastic gradient descent with momentum, whose rate falls by a factor at regular steps.

    The defaults are the solver described by TextTopicNet (Gomez et al., 2017); Gomez et al. (2018) drop the rate every 100,000 steps.

    lr: the initial rate. momentum, nesterov: torch's. weight_decay: only of matrices and kernels.
    drop_every_n_steps, drop: every drop_every_n_steps optimiser steps, the rate is multiplied by drop.
    warmup_steps: optimiser steps at the start in which the rate rises linearly.
    rates: factors on the rate, by prefix of parameter names. layer_decay: the rate of each layer of a trunk is this factor times that of
    the layer above it.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        drop_every_n_steps: int = 50_000,
        drop: float = 0.1,
        warmup_steps: int = 0,
        nesterov: bool = False,
        rates: dict[str, float] | None = None,
        layer_decay: float | None = None,
    ) -> None:
        super().__init__(rates, layer_decay)
        _check(lr, momentum=momentum, weight_decay=weight_decay, warmup_steps=warmup_steps, drop=drop)
        if drop_every_n_steps < 1:
            raise InputError(f"optimiser.drop_every_n_steps={drop_every_n_steps} must be at least 1")
        if nesterov and not momentum:
            raise InputError("optimiser.nesterov needs momentum above 0")
        self.lr, self.momentum, self.weight_decay, self.nesterov = lr, momentum, weight_decay, nesterov
        self.drop_every_n_steps, self.drop, self.warmup_steps = drop_every_n_steps, drop, warmup_steps

    def make(self, groups: list[dict[str, Any]]) -> Optimizer:
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)

    def schedule(self, optimizer: Optimizer, num_steps: Callable[[], float]) -> dict[str, Any] | None:
        return {"scheduler": LambdaLR(optimizer, self.share), "interval": "step"}

    def share(self, step: int) -> float:
        """The factor on the rate at an optimiser step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        return self.drop ** ((step - self.warmup_steps) // self.drop_every_n_steps)


class ScheduleFreeAdamW(Optimiser):
    """AdamW without a schedule (Defazio et al., 2024): it averages the weights instead of lowering the rate to zero.

    So a run may be made longer (`--extend`) or cut short at any step. Validation, best.ckpt and exports use the averaged weights. Batch
    norm keeps the statistics of the weights that are trained. Needs the package schedulefree (extra train).

    lr: the rate, several times that of a cosine schedule. weight_decay: only of matrices and kernels. warmup_steps: optimiser steps until
    the rate is reached. betas: AdamW's. rates: factors on the rate, by prefix of parameter names. layer_decay: the rate of each layer of a
    trunk is this factor times that of the layer above it.
    """

    def __init__(
        self,
        lr: float = 2.5e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 20,
        betas: tuple[float, float] = (0.9, 0.999),
        rates: dict[str, float] | None = None,
        layer_decay: float | None = None,
    ) -> None:
        super().__init__(rates, layer_decay)
        _check(lr, weight_decay=weight_decay, warmup_steps=warmup_steps)
        _check_betas(betas)
        self.lr, self.weight_decay, self.warmup_steps, self.betas = lr, weight_decay, warmup_steps, betas

    def make(self, groups: list[dict[str, Any]]) -> Optimizer:
        try:
            from schedulefree import AdamWScheduleFree
        except ModuleNotFoundError:
            needs = "multimodal.training.ScheduleFreeAdamW needs the package schedulefree, which is not installed"
            raise missing_extra("train", needs, "pip install schedulefree") from None
        made: Optimizer = AdamWScheduleFree(
            groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, warmup_steps=self.warmup_steps
        )
        return made


class TorchOptimiser(Optimiser):
    """Any optimiser of torch or of a package, by its class path, and any scheduler.

    optimizer: such as `{class_path: torch.optim.RMSprop, init_args: {lr: 1.0e-3}}`.
    scheduler: such as `{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 60}}`; None: the rate stays.
    scheduler_each: when the scheduler steps: each epoch or each optimiser step.
    rates: factors on the rate, by prefix of parameter names. layer_decay: the rate of each layer of a trunk is this factor times that of
    the layer above it.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_each: Literal["epoch", "step"] = "epoch",
        rates: dict[str, float] | None = None,
        layer_decay: float | None = None,
    ) -> None:
        super().__init__(rates, layer_decay)
        self.make_optimizer, self.make_scheduler, self.scheduler_each = optimizer, scheduler, scheduler_each

    def make(self, groups: list[dict[str, Any]]) -> Optimizer:
        try:
            return self.make_optimizer(groups)
        except (TypeError, ValueError) as error:  # a rate below zero, or parameters in groups (LBFGS)
            raise InputError(f"optimiser.optimizer: {' '.join(str(error).split())}") from None

    def schedule(self, optimizer: Optimizer, num_steps: Callable[[], float]) -> dict[str, Any] | None:
        if self.make_scheduler is None:
            return None
        try:
            scheduler = self.make_scheduler(optimizer)
        except (TypeError, ValueError) as error:
            raise InputError(f"optimiser.scheduler: {' '.join(str(error).split())}") from None
        if isinstance(scheduler, ReduceLROnPlateau):
            raise InputError(
                "optimiser.scheduler: ReduceLROnPlateau reads an epoch's figures after its checkpoint was written, so a resumed run "
                "would miss one. Use a scheduler that counts steps, or selection.patience to stop early"
            )
        return {"scheduler": scheduler, "interval": self.scheduler_each}


def warmup_cosine(step: int, num_steps: float, warmup_steps: int) -> float:
    """The share of the peak rate at an optimiser step, counted from 0: (0, 1] during warmup, then down to 0 at step num_steps."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1.0, num_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def averages(optimizer: Any) -> bool:
    """Whether the optimiser keeps an average beside the weights that it trains, as those of the package schedulefree do."""
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


@contextmanager
def averaged(optimizer: Any) -> Iterator[None]:
    """The average in place of the parameters; afterwards they are restored bitwise, however often this is used."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()  # computes them again, but only up to rounding
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def _layer_scales(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """Name of a trainable parameter in a network of timm or open_clip -> its layer's share of the rate."""
    from timm.optim import param_groups_layer_decay

    names = {id(parameter): name for name, parameter in module.named_parameters()}
    scales: dict[str, float] = {}
    for network in module.modules():
        if hasattr(network, "group_matcher"):
            for group in param_groups_layer_decay(network, layer_decay=layer_decay):
                scales |= {names[id(parameter)]: float(group["lr_scale"]) for parameter in group["params"]}
        elif (layers := layer_numbers(network)) is not None:
            top = max(layers.values())
            own = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
            scales |= {names[id(parameter)]: layer_decay ** (top - layers[name]) for name, parameter in own.items()}
    return scales


def _parts(names: Mapping[str, Any]) -> list[str]:
    """The first two parts of dotted names, to which one would give a rate."""
    return list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))


def _check(lr: float, **not_negative: float) -> None:
    if not lr > 0:
        raise InputError(f"optimiser.lr={lr} must be above 0")
    for name, value in not_negative.items():
        if value < 0:
            raise InputError(f"optimiser.{name}={value} must not be negative")


def _check_betas(betas: tuple[float, float]) -> None:
    if not all(0 <= beta < 1 for beta in betas):
        raise InputError(f"optimiser.betas={list(betas)} must be from 0 to below 1")
