"""The cheapest hardware for every layer within an accuracy budget: predicted, confirmed bit-exactly, trained."""
