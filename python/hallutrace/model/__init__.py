"""Models and how they are asked: loading, prompts, generation."""
