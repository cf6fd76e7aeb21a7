"""The mistakes that people make, and right answers by other roads, as data: one module for each exercise.

Every function stands by itself (only torch and the standard library), as it would in a learner's notebook.
"""
