"""A store in a browser. `app.serve` is the verb; `app.make_app` is the application, for your own server."""
