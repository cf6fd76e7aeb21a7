"""The judge: learner's code in a sandboxed worker, tests and verdicts outside of it, plain data in between.

`wire` is the data, `sandbox` starts what learner's code runs in, `zygote`, `confine` and `worker` run inside it, `session`
talks to one worker, `judge` turns a submission into verdicts.
"""
