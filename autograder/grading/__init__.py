"""Grading a class: what is accepted, verdicts in a journal, nbgrader's gradebook, a table with reasons, a report; and a class to try it on."""
