"""How bytes travel: serial lines and ZeroMQ sockets."""
