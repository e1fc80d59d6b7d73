"""The search for configurations, on a GPU or by the static model."""
