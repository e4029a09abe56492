"""The trainings of a graph VAE: autoencoder and scorer at once, or one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hallutrace.detect.nets.graph_batches import READ_AT_ONCE, GraphBatch, GraphTable
from hallutrace.detect.nets.task import Rows, Task, classification, cross_entropy, finite_auroc
from hallutrace.detect.nets.vae import Code, LayerVae, Objective, VaeNet, divergence


@dataclass(frozen=True)
class VaeData:
    """Graphs and labels (int8) of the training and the validation part."""

    train: GraphTable
    validation: GraphTable
    train_labels: NDArray[np.int8]
    validation_labels: NDArray[np.int8]


@dataclass(frozen=True)
class VaeLoss:
    """The loss of an autoencoder.

    Attributes:
        objective: ``weighted`` or ``binary``.
        alpha: weight of the loss beside the cross entropy of a scorer.
        beta: weight of the KL divergence in the loss.
    """

    objective: Objective
    alpha: float
    beta: float

    def of_graphs(self, vae: LayerVae, code: Code, batch: GraphBatch, draw: bool) -> torch.Tensor:
        """Reconstruction + beta KL, float32 [graphs]."""
        error = vae.reconstruction(code.z, batch, self.objective, draw)
        return error + self.beta * divergence(code, batch)


def joint_task(net: VaeNet, data: VaeData, vae_loss: VaeLoss) -> Task:
    """Autoencoder and scorer at once."""

    def loss(rows: Rows, labels: torch.Tensor, device: torch.device) -> torch.Tensor:
        batch = data.train.batch(rows).to(device)
        code = net.vae.encode(batch, draw=True)
        scored = cross_entropy(net.scorer(net.vae.sequence(code.z, batch)), labels)
        return scored + vae_loss.alpha * vae_loss.of_graphs(net.vae, code, batch, draw=True).mean()

    return classification(
        net,
        data.train_labels,
        data.validation_labels,
        loss,
        lambda batch_size, device: data.validation.map(net, batch_size, device),
        data.train.order,
    )


def vae_task(net: VaeNet, data: VaeData, vae_loss: VaeLoss, rows: Rows) -> Task:
    """The autoencoder alone, which stops by its own loss on the validation part.

    Args:
        net: its ``vae`` is trained.
        data: graphs and labels.
        vae_loss: the loss.
        rows: training rows to learn from. If they are not all (right answers alone), the training
            stops by the loss on right answers of the validation part alone.
    """
    vae = net.vae
    is_partial = len(rows) < len(data.train_labels)
    monitored = (data.validation_labels == 0) | (not is_partial)

    def loss(rows: Rows, device: torch.device) -> torch.Tensor:
        batch = data.train.batch(rows).to(device)
        return vae_loss.of_graphs(vae, vae.encode(batch, draw=True), batch, draw=True).mean()

    def trace_losses(batch: GraphBatch) -> torch.Tensor:
        code = vae.encode(batch, draw=False)
        return vae.layer_mean(vae_loss.of_graphs(vae, code, batch, draw=False))

    def validate(batch_size: int, device: torch.device) -> tuple[float, float]:
        losses = data.validation.map(trace_losses, batch_size, device)
        return finite_auroc(losses, data.validation_labels), -float(losses[monitored].mean())

    share = float(data.train_labels.mean())
    return Task(vae, share, lambda rng: data.train.order(rng, rows), loss, validate)


def scorer_task(net: VaeNet, data: VaeData) -> Task:
    """The scorer on the codes of a trained autoencoder."""
    net.eval()
    train, validation = _sequences(net, data.train), _sequences(net, data.validation)

    def loss(rows: Rows, labels: torch.Tensor, device: torch.device) -> torch.Tensor:
        return cross_entropy(net.scorer(train[torch.from_numpy(rows)].to(device)), labels)

    def scores(_: int, device: torch.device) -> NDArray[np.float64]:
        found: NDArray[np.float64] = net.scorer(validation.to(device)).double().cpu().numpy()
        return found

    return classification(net.scorer, data.train_labels, data.validation_labels, loss, scores)


def _sequences(net: VaeNet, table: GraphTable) -> torch.Tensor:
    """z_1 .. z_L of all traces, float32 [traces, layers, latent]."""
    with torch.no_grad():
        return torch.cat([net.sequence(batch) for batch in table.batches(READ_AT_ONCE)])
