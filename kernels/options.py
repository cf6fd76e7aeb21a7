"""What attention's keywords say about scores, together: made once in a public function, checked once (contract.py), and
handed on as one argument to whatever computes."""

from dataclasses import dataclass

import torch

__all__ = ["PLAIN", "Scale", "ScoreOptions", "split_scale"]

# What a cache's elements are multiplied with: nothing, one number, or a tensor of one or of num_kv_heads numbers.
Scale = float | torch.Tensor | None


@dataclass(frozen=True, eq=False)  # tensors have no one answer to ==
class ScoreOptions:
    """Keywords of `kernels.paged_attention`, whose docstring says what each means, in its order."""

    causal: bool = True
    sliding_window: int | None = None
    softcap: float | None = None
    alibi_slopes: torch.Tensor | None = None  # [num_heads]
    sinks: torch.Tensor | None = None  # [num_heads]
    k_scale: Scale = None
    v_scale: Scale = None
    batch_invariant: bool = False

    def most_seen(self, max_seq_len: int) -> int:
        """Positions that a query sees at most, in a sequence of at most max_seq_len."""
        return max_seq_len if self.sliding_window is None else min(max_seq_len, self.sliding_window)


PLAIN = ScoreOptions()


def split_scale(scale: Scale) -> tuple[torch.Tensor | None, float, int]:
    """(tensor to read, number, stride from one kv head's scale to the next: 0 where one serves all).

    A scale that is a number is folded into other numbers before a launch; one that lies on the device is read there.
    """
    if isinstance(scale, torch.Tensor):
        scale = scale.reshape(-1)
        return scale, 1.0, 1 if len(scale) > 1 else 0
    return None, 1.0 if scale is None else float(scale), 0
