"""The judge: learner's code in a sandboxed worker, tests and verdicts outside of it, plain data in between.

On the judge's side: `judge` turns a submission into a `judgement`; `rebuild` makes the notebook that is judged, `scan` looks for
words in its text, `trusted_check` keeps checks and answers apart, `session` talks to one worker through `proxy` objects, `png`
lets nothing but pictures through, `gpu` says whether the judge's own GPU works.

In between: `wire` is the data; `sandbox` starts what learner's code runs in, by `warm_parent` and the command line of
`bubblewrap`, or of `plain` where no sandbox can be made and that is permitted; `limits` and `processes` bound it.

Inside: `zygote` is forked for each worker, `confine` takes its rights, `worker` runs the cells, `shown` keeps their pictures and
`evidence` counts what a person may want to know.
"""
