"""``GET /``: what is predicted, by which model, on whose word, as a page for people."""

from cryptoml_serving.api.page.route import router

__all__ = ["router"]
