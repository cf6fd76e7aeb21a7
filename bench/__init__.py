"""Benchmarks of the kernels and their peers: `python -m bench` measures, `python -m bench.render` draws. Of the grading: grading/.

cases.py        what is measured, and the bytes and operations that it takes
inputs.py       a case's tensors, and the float32 truth that every output is held against
contender.py    the interface of whoever is measured: ladder.py (ours) and peers/ (others)
timing.py       CUDA graphs over cold inputs, contenders taking turns
measure.py      one case, all contenders; worker.py runs it in a process that may be lost
run.py          the command; result_file.py keeps results/NAME.json, machine.py says what it depends on
tune.py         `python -m bench.tune`: other tiles for the Triton tier, beside those that it has
targets.py      what is wanted, and whether it is met; render.py and roofline.py make the table and the picture
"""
