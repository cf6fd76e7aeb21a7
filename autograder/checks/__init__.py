"""One module for each check: cases, how an answer is run, the truth, hints."""
