"""A store in a browser. `app.serve` is the verb, `app.make_app` the application for a server of yours."""
