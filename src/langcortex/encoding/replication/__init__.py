"""The published 2025 recipe, leaks included, and its ablation: r on noise as each flaw is fixed."""
