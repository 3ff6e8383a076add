"""Pages for people: the reference of the API at `/docs`, and responses as HTML where the client asks for it."""
