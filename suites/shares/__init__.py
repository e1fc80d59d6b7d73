"""What a rank's share of a model takes by itself: which shares a whole model has, and how their time is taken."""
