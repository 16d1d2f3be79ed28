"""What an agent imports: a remote world as a Gymnasium environment."""
