"""Grading a class with nbgrader: what is taken in, one kernel a learner, a table with reasons; and a class to try it on."""
