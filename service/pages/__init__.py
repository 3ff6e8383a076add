"""Pages for people: the reference of the API at `/docs`, and the files that it consists of."""
