"""Links into the MLflow UI, and how it shows our runs."""
