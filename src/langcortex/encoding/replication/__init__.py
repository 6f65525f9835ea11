"""The published 2025 recipe, leaks included, and its ablation: what each leak makes of noise."""
