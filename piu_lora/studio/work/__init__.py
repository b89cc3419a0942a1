"""The jobs of the studio's pages: each calls the library with a job's progress, and keeps what is shown."""
