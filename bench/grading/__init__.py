"""Benchmarks of the grading: what is told, what is let through, how long it takes.

submissions.py    lessons 3 and 4: wrong and right notebooks through the judge (`submissions_*.py` make them, submission.py holds one)
hidden_draws.py   every known mistake on many draws of its hidden suite
hostile.py        hostile submissions (hostile_submissions.py) through stock nbgrader and through the judge, side by side
throughput.py     the same class graded by stock nbgrader and by `autograder grade`
"""
