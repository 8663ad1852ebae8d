"""What there is: every video the given roots name, listed without opening one; and remote videos as local files."""
