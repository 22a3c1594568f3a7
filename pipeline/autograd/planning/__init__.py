"""From what is asked to the evaluator that is cheapest and proved right."""
