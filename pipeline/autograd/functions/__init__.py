"""What is differentiated: a user's function or module as a function of one row of numbers."""
