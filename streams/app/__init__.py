"""The Faust application: the only folder that imports faust."""
