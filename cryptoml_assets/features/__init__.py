"""The feature catalog, its computation, the feature store and the training set."""
