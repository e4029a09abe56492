"""How the small model in the package was made, and its figures."""
