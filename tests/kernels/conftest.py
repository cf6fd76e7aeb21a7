"""One thread for torch: its operations are tiny here, and threads that wait for each other on a busy machine take a
hundred times as long as the work."""

import torch

torch.set_num_threads(1)
