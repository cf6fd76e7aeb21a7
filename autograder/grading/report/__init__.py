"""`autograder report`: what an instructor wants to know of a graded class, in a terminal, as a page and as CSV.

`results` gathers what is known of each learner, `same_text` compares answers, `summary` makes numbers of both; `terminal`, `page`
and `lines` only show them.
"""
