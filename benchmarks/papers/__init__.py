"""The protocols of papers, and the trainer that they share."""
