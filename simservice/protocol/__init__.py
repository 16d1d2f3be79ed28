"""The wire: spaces, values, nouns and errors as protobuf messages, and back."""
