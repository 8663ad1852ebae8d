"""From decoded frames to rows of the tables: embed, segment, caption, answer."""
