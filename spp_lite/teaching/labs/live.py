"""Notebook 09: the bytes of all tensors that are alive, and the most there ever were at once; works without a GPU.

Sees what PyTorch's operations return, not what they need while they are at work. Knows no model.
"""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Within `with LiveBytes(model) as live`: live.now and live.most, in bytes, the model's parameters included."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = WeakIdKeyDictionary()
        for parameter in model.parameters():
            self.hold(parameter)

    def hold(self, tensor: torch.Tensor) -> None:
        """Count the memory behind a tensor, once, until it is freed."""
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        size = self.known[storage] = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.release, size)

    def release(self, size: int) -> None:
        """A storage is gone."""
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and count what it returns."""
        found = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.hold, found)
        return found


def training_peak(model: torch.nn.Module, records: int, tokens: int) -> int:
    """Bytes: the most that is alive in the second of two AdamW steps, with gradient checkpointing.

    model: a PeftModel whose factors are trained, on random records. In the second step Adam's moments exist already.
    """
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=1e-3)
    ids = torch.arange(records * tokens, device=model.device).view(records, tokens) % model.config.vocab_size
    model.train()
    with LiveBytes(model) as live:
        for _ in range(2):
            adam.zero_grad()
            live.most = live.now
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            adam.step()
    model.eval()
    return live.most
